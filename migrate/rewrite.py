"""Rewriting of one script: parsing, planning, and the smallest change of the text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import libcst as cst
from libcst import metadata as meta

from ..errors import UsageError
from .bindings import Binding, BindingCollector, Site, imported_from
from .imports import Action, Fate, change_import
from .inspection import Inspection
from .names import Finding, canonical
from .plan import CONTRIB, Plan
from .statements import Edits, Statements

COMPAT = "tensorflow.compat.v1"
_MODE_SWITCHES = {
    f"tf.{name}"
    for name in (
        "disable_eager_execution",
        "disable_v2_behavior",
        "enable_eager_execution",
        "enable_v2_behavior",
    )
}


@dataclass(frozen=True)
class Migration:
    """A script before and after, with the names that were left."""

    before: str
    after: str
    findings: tuple[Finding, ...]


def migrate_source(source: str, *, keep_import: bool = False) -> Migration:
    """Rewrites a script for TensorFlow 1 to `paramserve` and today's TensorFlow.

    Names with a place are rewritten; everything else, with white space and comments, stays
    unchanged. A second rewrite changes nothing.

    Args:
        source: The text of the script, in Python 3.
        keep_import: Leave `import tensorflow as tf` rather than import `tensorflow.compat.v1`
            under the same name and switch to the behaviour of TensorFlow 1.

    Raises:
        UsageError: The text is not Python 3, or uses the name `paramserve` for something else.
    """
    try:
        wrapper = meta.MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    except cst.ParserSyntaxError as error:
        raise UsageError(
            f"{error.editor_line}:{error.editor_column}: is not Python 3; for Python 2 run a "
            "converter such as 2to3 first"
        ) from error
    return _Rewriter(source, wrapper, keep_import).run()


class _Rewriter:
    def __init__(self, source: str, wrapper: meta.MetadataWrapper, keep_import: bool) -> None:
        self._source = source
        self._collector = BindingCollector()
        wrapper.visit(self._collector)
        self._bindings = self._collector.bindings
        self._edits = Edits(source)
        self._statements = Statements(wrapper, self._edits)
        self._inspection = Inspection(wrapper, self._collector)
        for_tf2 = self._inspection.is_for_tensorflow_2()
        self._to_compat = not keep_import and not for_tf2
        self._plan = Plan(only_compat=for_tf2)

    def run(self) -> Migration:
        """Makes all changes, then looks for the remaining uses."""
        foreign = self._inspection.other_meaning_of("paramserve")
        if foreign is not None:
            raise UsageError(f"{foreign}: there is another `paramserve` here; rename it first")
        self._rewrite_uses()
        for statement in self._collector.imports:
            self._rewrite_import(statement)
        self._drop_assignments()
        self._add_imports()
        self._add_mode_switch()
        self._statements.drop_all()
        findings = self._inspection.findings(self._plan, to_compat=self._to_compat)
        return Migration(self._source, self._edits.applied(), tuple(sorted(set(findings))))

    def _rewrite_uses(self) -> None:
        for use, target in self._plan.spelled_out(self._bindings):
            node: cst.BaseExpression = use.node
            for _ in range(target.rest.count(".")):
                assert isinstance(node, cst.Attribute)
                node = node.value
            self._statements.replace(node, target.path)

    def _rewrite_import(self, statement: cst.Import | cst.ImportFrom) -> None:
        if isinstance(statement.names, cst.ImportStar):
            return
        sites = {
            site.alias: (binding, site)
            for binding in self._bindings
            for site in binding.sites
            if site.statement is statement
        }
        if not sites:
            return
        actions: dict[cst.ImportAlias, Action] = {
            alias: self._action(*sites[alias]) if alias in sites else Fate.KEPT
            for alias in statement.names
        }
        change = change_import(statement, actions)
        for node, text in change.parts:
            self._statements.replace(node, text)
        if change.statements is not None:
            self._statements.replace_statement(statement, change.statements)

    def _action(self, binding: Binding, site: Site) -> Action:
        """Returns the action for one name of an import."""
        new_path = self._plan.new_path(binding)
        if new_path is not None:
            return new_path
        if self._plan.is_gone(binding):
            return Fate.DROPPED
        if isinstance(site.statement, cst.ImportFrom):
            public = imported_from(site.statement) == "tensorflow"
            moves = public and self._to_compat and canonical(site.path) != CONTRIB
            return f"{COMPAT}.{site.path.rpartition('.')[2]}" if moves else Fate.KEPT
        return self._action_of_whole(binding, site)

    def _action_of_whole(self, binding: Binding, site: Site) -> Action:
        """Returns the action for `import tensorflow`, or for `import tensorflow.contrib.slim`."""
        assert site.alias is not None
        imported = site.alias.evaluated_name
        whole = COMPAT if self._to_compat else "tensorflow"
        if imported == "tensorflow" and self._to_compat:
            return whole
        path = canonical(imported)
        if site.path != imported and path.startswith(CONTRIB):
            uses = [use for use in binding.uses if self._plan.is_left(use)]
            if any(f"{canonical(use.path)}.".startswith(f"{path}.") for use in uses):
                return Fate.KEPT
            return Fate.DROPPED if len(binding.sites) > 1 else whole
        return Fate.KEPT

    def _drop_assignments(self) -> None:
        for binding in self._bindings:
            for site in binding.sites:
                if isinstance(site.statement, cst.Assign) and self._plan.is_gone(binding):
                    self._statements.replace_statement(site.statement, [])

    def _add_imports(self) -> None:
        """Adds the imports of the new names next to the first import of TensorFlow.

        That is at the module's top; only in a script that imports TensorFlow inside functions
        alone, it is there.
        """
        needed = self._needed_modules()
        everything = sorted(frozenset[str]().union(*needed.values()))
        places = self._import_sites()
        at_top = [site for site in places if self._statements.is_at_top(site.statement)]
        if at_top:
            first = min(at_top, key=lambda site: self._statements.start(site.statement))
            self._insert_imports(first, everything)
            return
        for binding, modules in needed.items():
            origin = binding
            while origin.sites[0].alias is None:
                origin = next(o for o in self._bindings if any(u.names is origin for u in o.uses))
            self._insert_imports(origin.sites[0], sorted(modules))

    def _needed_modules(self) -> dict[Binding, frozenset[str]]:
        needed: dict[Binding, frozenset[str]] = {}
        for use, target in self._plan.spelled_out(self._bindings):
            needed[use.binding] = needed.get(use.binding, frozenset()) | target.modules
        for binding in self._bindings:
            if self._plan.new_path(binding) == "paramserve.contrib":
                needed[binding] = self._plan.modules(binding)
        return needed

    def _insert_imports(self, site: Site, modules: Iterable[str]) -> None:
        there = self._inspection.imported_modules()
        lines = [f"import {module}" for module in modules if module not in there]
        self._statements.insert_before(site.statement, lines)

    def _add_mode_switch(self) -> None:
        """Adds the call that makes graphs build and run as in TensorFlow 1."""
        used = {canonical(use.path) for binding in self._bindings for use in binding.uses}
        if not self._to_compat or used & _MODE_SWITCHES:
            return
        whole = [site for site in self._import_sites() if site.path == "tensorflow"]
        at_top = [site for site in whole if self._statements.is_at_top(site.statement)]
        for site in at_top[:1] or whole:
            assert site.alias is not None
            name = site.alias.evaluated_alias or "tensorflow"
            self._statements.insert_after_imports(site.statement, f"{name}.disable_v2_behavior()")

    def _import_sites(self) -> list[Site]:
        """Returns all imports of TensorFlow's names, as they stand in the text."""
        sites = [site for binding in self._bindings for site in binding.sites if site.alias]
        return sorted(sites, key=lambda site: self._statements.start(site.statement))
