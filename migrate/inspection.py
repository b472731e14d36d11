"""Inspection of a script before it is rewritten, and of the names that are left afterwards."""

from __future__ import annotations

import importlib
import re
import types
from collections.abc import Iterator
from typing import Any

import libcst as cst
from libcst import metadata as meta

from .bindings import Binding, BindingCollector, Use, imported_from
from .names import NAMESPACES, Finding, canonical, place, remedy
from .plan import CONTRIB, Plan

_COMPAT = "tensorflow.compat.v1"
_NAME = re.compile(r"(tensorflow|tf)\.(contrib|train)(\.\w+)*")
_PARTLY_MOVED = {namespace.old for namespace in NAMESPACES if not namespace.whole}
PRIVATE = ("core", "examples", "models", "python", "tools")


class Inspection:
    """Questions about one module."""

    def __init__(self, wrapper: meta.MetadataWrapper, collector: BindingCollector) -> None:
        self._collector = collector
        self._uses = [use for binding in collector.bindings for use in binding.uses]
        self._positions = wrapper.resolve(meta.PositionProvider)
        self._parents = wrapper.resolve(meta.ParentNodeProvider)
        self._scopes = {each for each in wrapper.resolve(meta.ScopeProvider).values() if each}

    def is_for_tensorflow_2(self) -> bool:
        """Returns whether a script uses names of TensorFlow 2 only, and none of TensorFlow 1 only.

        An import of `paramserve` counts as the former: the script has been migrated before.
        """
        plain = [use.path for use in self._uses if use.path.startswith("tensorflow.")]
        migrated = any(each.startswith("paramserve") for each in self.imported_modules())
        has_new = migrated or any(
            path.startswith("tensorflow.compat.v") or missing(_in_compat(path)) for path in plain
        )
        return has_new and not any(
            canonical(path).startswith(CONTRIB) or missing(path) for path in plain
        )

    def imported_modules(self) -> set[str]:
        """Modules that the script imports by their full names."""
        return {
            alias.evaluated_name
            for statement in self._collector.imports
            if isinstance(statement, cst.Import)
            for alias in statement.names
            if alias.asname is None
        }

    def other_meaning_of(self, name: str) -> str | None:
        """Returns the LINE:COLUMN at which a name gets another meaning than an import."""
        positions = [
            self._position(assignment.node)
            for scope in self._scopes
            for assignment in scope.assignments[name]
            if type(assignment) is meta.Assignment
        ]
        return "{}:{}".format(*min(positions)) if positions else None

    def findings(self, plan: Plan, *, to_compat: bool) -> Iterator[Finding]:
        """Yields the uses left by the plan that will fail, or cannot be followed."""
        for binding in self._collector.bindings:
            broken = self._broken_import(binding, to_compat)
            if broken is not None:
                yield broken
                continue
            for use in binding.uses:
                if plan.is_left(use) and not (use.names and use.names.uses):
                    yield from self._left_use(use, to_compat)
        for statement in self._collector.imports:
            yield from self._star_import(statement)
        for string in self._collector.strings:
            yield from self._name_in_string(string)

    def _broken_import(self, binding: Binding, to_compat: bool) -> Finding | None:
        """Returns an import of something private to TensorFlow, or of something that is gone."""
        path = canonical(binding.path)
        alias = binding.sites[0].alias
        private = path.startswith("tf.python.training")
        gone = not path.startswith(CONTRIB) and missing(self._future(binding.path, to_compat))
        if alias is None or not (private or gone) or place(path):
            return None
        return self._finding(alias, binding.path, remedy(path))

    def _left_use(self, use: Use, to_compat: bool) -> Iterator[Finding]:
        path = canonical(use.path)
        if use.binding.ambiguous:
            if place(path) or path.startswith(CONTRIB):
                advice = f"`{use.binding.name}` has other values too: rewrite this by hand"
                yield self._finding(use.node, path, advice)
        elif f"{path}.".startswith(f"{CONTRIB}."):
            yield self._finding(use.node, path, remedy(path))
        elif path in _PARTLY_MOVED or (path == "tf" and self._is_asked_for_attributes(use)):
            advice = "its use here cannot be followed: rewrite this by hand"
            yield self._finding(use.node, path, advice)
        elif missing(self._future(use.path, to_compat)):
            moved = not to_compat and not missing(_in_compat(use.path))
            advice = f"use tf.compat.v1{path.removeprefix('tf')}" if moved else remedy(path)
            yield self._finding(use.node, use.path if ".python." in path else path, advice)

    def _is_asked_for_attributes(self, use: Use) -> bool:
        """Returns whether the use is the object of a `getattr`."""
        argument = self._parents[use.node]
        call = self._parents[argument]
        return (
            isinstance(argument, cst.Arg)
            and isinstance(call, cst.Call)
            and isinstance(call.func, cst.Name)
            and call.func.value == "getattr"
            and call.args[0] is argument
        )

    def _star_import(self, statement: cst.Import | cst.ImportFrom) -> Iterator[Finding]:
        if isinstance(statement, cst.ImportFrom) and isinstance(statement.names, cst.ImportStar):
            module = imported_from(statement) or ""
            if module.partition(".")[0] in ("tensorflow", "tf_slim"):
                advice = (
                    "names imported with `*` cannot be followed: import the names that are used"
                )
                yield self._finding(statement, f"{canonical(module)}.*", advice)

    def _name_in_string(self, node: cst.SimpleString) -> Iterator[Finding]:
        value = node.evaluated_value
        if isinstance(value, str) and _NAME.fullmatch(value):
            path = canonical(value)
            placed = place(path)
            advice = f"use {placed[0].path}{placed[1]}" if placed else remedy(path)
            yield self._finding(node, path, f"in a string: {advice}")

    def _future(self, path: str, to_compat: bool) -> str:
        """Returns the path under which TensorFlow will be asked for this once it is rewritten."""
        private = path.partition(".")[2].partition(".")[0] in PRIVATE
        return _in_compat(path) if to_compat and not private else path

    def _finding(self, node: cst.CSTNode, name: str, advice: str) -> Finding:
        return Finding(*self._position(node), name, advice)

    def _position(self, node: cst.CSTNode) -> tuple[int, int]:
        start = self._positions[node].start
        return start.line, start.column + 1


def _in_compat(path: str) -> str:
    if path.startswith(_COMPAT) or not path.startswith("tensorflow."):
        return path
    return f"{_COMPAT}.{path.removeprefix('tensorflow.')}"


"""Parts of the package that scripts imported beside its public modules."""


def missing(path: str) -> str | None:
    """Looks a dotted name up in the installed TensorFlow.

    Args:
        path: Begins with "tensorflow". It is followed from module to module; attributes of other
            objects are not checked.

    Returns:
        TensorFlow's message about the first missing part; None if none is missing.
    """
    reached: Any = importlib.import_module("tensorflow")
    parts = path.split(".")
    for length in range(2, len(parts) + 1):
        if not isinstance(reached, types.ModuleType):
            return None
        try:
            reached = getattr(reached, parts[length - 1])
        except (AttributeError, ImportError) as error:
            # Public modules are there as attributes; importing one would replace the wrapper that
            # stands for Keras 3.
            if parts[1] not in PRIVATE:
                return str(error)
            try:
                reached = importlib.import_module(".".join(parts[:length]))
            except ImportError:
                return str(error)
    return None
