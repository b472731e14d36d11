"""Local names of a script that stand for TensorFlow's modules and names, and their uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import libcst as cst
from libcst import metadata as meta
from libcst.helpers import get_full_name_for_node

from .names import canonical, place

_PACKAGES = ("tensorflow", "tf_slim")


@dataclass(eq=False)
class Site:
    """One statement that binds a local name to a name of TensorFlow."""

    path: str
    """The bound name, as written: "tensorflow.contrib.slim"."""
    statement: cst.Import | cst.ImportFrom | cst.Assign
    alias: cst.ImportAlias | None = None
    """The part of an import that does it."""


@dataclass(eq=False)
class Binding:
    """A local name, in one scope, for something of TensorFlow's."""

    name: str
    sites: list[Site]
    ambiguous: bool
    """True if the name has other values too, so that its uses cannot be told apart."""
    uses: list[Use] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The bound name, as the first site wrote it."""
        return self.sites[0].path


@dataclass(eq=False)
class Use:
    """A dotted name in an expression that begins with a `Binding`."""

    node: cst.Name | cst.Attribute
    binding: Binding
    rest: str
    """The text after the binding's name: ".learning.train", or ""."""
    names: Binding | None = None
    """The use is the right side of an assignment that makes this binding."""

    @property
    def path(self) -> str:
        """The used name, as written, beginning with "tensorflow"."""
        return self.binding.path + self.rest


class BindingCollector(cst.CSTVisitor):
    """Collector of a module's bindings and their uses, in the order in which they are read.

    Local names are followed through scopes, so another parameter or variable with the name `tf`
    does not count.
    """

    METADATA_DEPENDENCIES = (
        meta.ScopeProvider,
        meta.ExpressionContextProvider,
        meta.ParentNodeProvider,
        meta.PositionProvider,
    )

    def __init__(self) -> None:
        super().__init__()
        self.bindings: list[Binding] = []
        self.imports: list[cst.Import | cst.ImportFrom] = []
        self.strings: list[cst.SimpleString] = []
        self._known: dict[tuple[meta.Scope, str], Binding | None] = {}

    def visit_Import(self, node: cst.Import) -> bool:
        """Notes an import; the names in it are no uses."""
        self.imports.append(node)
        self._look_up_imported(node)
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        """Notes an import; the names in it are no uses."""
        self.imports.append(node)
        if not isinstance(node.names, cst.ImportStar):
            self._look_up_imported(node)
        return False

    def visit_Attribute(self, node: cst.Attribute) -> bool:
        """Records a dotted name as one use; the parts of any other node are visited."""
        base: cst.BaseExpression = node
        while isinstance(base, cst.Attribute):
            base = base.value
        if not isinstance(base, cst.Name):
            return True
        self._note_use(node, base)
        return False

    def visit_Name(self, node: cst.Name) -> None:
        """Notes a name that stands alone."""
        self._note_use(node, node)

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        """Notes a string, which may hold a name."""
        self.strings.append(node)

    def _note_use(self, node: cst.Name | cst.Attribute, base: cst.Name) -> None:
        context = self.get_metadata(meta.ExpressionContextProvider, base, None)
        if context is not meta.ExpressionContext.LOAD:
            return
        binding = self._binding_of(base)
        if binding is not None:
            use = Use(node, binding, dotted_name(node)[len(base.value) :])
            use.names = self._named_by(node)
            binding.uses.append(use)

    def _named_by(self, node: cst.CSTNode) -> Binding | None:
        """Returns the binding that an assignment of this value makes."""
        parent = self.get_metadata(meta.ParentNodeProvider, node)
        if not isinstance(parent, cst.Assign) or len(parent.targets) != 1:
            return None
        target = parent.targets[0].target
        binding = self._binding_of(target) if isinstance(target, cst.Name) else None
        made_here = binding and any(site.statement is parent for site in binding.sites)
        return binding if made_here else None

    def _look_up_imported(self, node: cst.Import | cst.ImportFrom) -> None:
        """Makes the bindings of an import, used or not."""
        scope = self.get_metadata(meta.ScopeProvider, node)
        assert not isinstance(node.names, cst.ImportStar)
        for alias in node.names:
            name = _local_name(alias)
            if isinstance(scope, meta.Scope):
                self._binding_in(next(iter(scope[name])).scope, name)

    def _binding_of(self, name: cst.Name) -> Binding | None:
        scope = self.get_metadata(meta.ScopeProvider, name, None)
        assignments = scope[name.value] if isinstance(scope, meta.Scope) else ()
        scopes = {each.scope for each in assignments}
        return self._binding_in(scopes.pop(), name.value) if len(scopes) == 1 else None

    def _binding_in(self, scope: meta.Scope, name: str) -> Binding | None:
        key = (scope, name)
        if key not in self._known:
            self._known[key] = None  # For a name that is assigned from itself.
            binding = self._make_binding(scope, name)
            self._known[key] = binding
            if binding is not None:
                self.bindings.append(binding)
        return self._known[key]

    def _make_binding(self, scope: meta.Scope, name: str) -> Binding | None:
        sites: list[Site] = []
        others = 0
        for assignment in scope.assignments[name]:
            node = getattr(assignment, "node", None)
            found = self._sites(node, name)
            sites += found
            others += not found and not self._is_none(node)
        if not sites:
            return None
        sites.sort(key=lambda site: self._line(site.statement))
        paths = {canonical(site.path) for site in sites}
        return Binding(name, sites, ambiguous=others > 0 or len(paths) > 1)

    def _sites(self, node: Any, name: str) -> Sequence[Site]:
        if isinstance(node, cst.Import | cst.ImportFrom):
            return [
                site
                for site in _import_sites(node)
                if site.alias is not None and _local_name(site.alias) == name
            ]
        assign = self._assignment(node)
        if assign is None or not isinstance(assign.value, cst.Name | cst.Attribute):
            return []
        path = self._path_of(assign.value)
        # From there on, the value of a placed name is a value like any other.
        return [Site(path, assign)] if path is not None and not place(canonical(path)) else []

    def _path_of(self, node: cst.Name | cst.Attribute) -> str | None:
        base: cst.BaseExpression = node
        while isinstance(base, cst.Attribute):
            base = base.value
        if not isinstance(base, cst.Name):
            return None
        binding = self._binding_of(base)
        if binding is None or binding.ambiguous:
            return None
        return binding.path + dotted_name(node)[len(base.value) :]

    def _assignment(self, node: Any) -> cst.Assign | None:
        """Returns the statement `name = value` that assigns to this name."""
        if not isinstance(node, cst.Name):
            return None
        target = self.get_metadata(meta.ParentNodeProvider, node, None)
        assign = self.get_metadata(meta.ParentNodeProvider, target, None) if target else None
        if isinstance(assign, cst.Assign) and len(assign.targets) == 1:
            return assign if assign.targets[0].target is node else None
        return None

    def _is_none(self, node: Any) -> bool:
        """Returns whether a name is given None, as where an import failed."""
        assign = self._assignment(node)
        return assign is not None and get_full_name_for_node(assign.value) == "None"

    def _line(self, node: cst.CSTNode) -> int:
        line: int = self.get_metadata(meta.PositionProvider, node).start.line
        return line


def dotted_name(node: cst.BaseExpression) -> str:
    """Returns a name, or an attribute of one, without the white space that may be in it."""
    name = get_full_name_for_node(node)
    assert name is not None
    return name


def imported_from(statement: cst.ImportFrom) -> str | None:
    """Returns the module of a `from` import; None if it is a relative one."""
    if statement.relative or statement.module is None:
        return None
    return dotted_name(statement.module)


def _local_name(alias: cst.ImportAlias) -> str:
    return alias.evaluated_alias or alias.evaluated_name.partition(".")[0]


def _import_sites(statement: cst.Import | cst.ImportFrom) -> list[Site]:
    """Returns the sites of an import that name something of TensorFlow's."""
    if isinstance(statement.names, cst.ImportStar):
        return []
    sites = []
    for alias in statement.names:
        path = alias.evaluated_name
        if isinstance(statement, cst.ImportFrom):
            path = f"{imported_from(statement)}.{path}"
        elif alias.evaluated_alias is None:
            path = path.partition(".")[0]
        if path.partition(".")[0] in _PACKAGES:
            sites.append(Site(path, statement, alias))
    return sites
