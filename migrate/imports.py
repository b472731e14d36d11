"""Rewriting of import statements."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import libcst as cst

from .bindings import dotted_name, imported_from


class Fate(enum.Enum):
    """The fate of a name in an import that gets no new path."""

    KEPT = enum.auto()
    DROPPED = enum.auto()


Action = str | Fate
"""A new dotted path to import under the same local name, or a fate."""


@dataclass(frozen=True)
class ImportChange:
    """A rewritten import: either parts of it are replaced, or all of it."""

    parts: list[tuple[cst.CSTNode, str]]
    statements: list[str] | None = None
    """The statements in its place; None: unchanged, empty: none."""


def change_import(
    statement: cst.Import | cst.ImportFrom, actions: Mapping[cst.ImportAlias, Action]
) -> ImportChange:
    """Finds the smallest change that rewrites an import.

    Args:
        statement: The import; no `*`.
        actions: The action for each of its names.
    """
    if isinstance(statement, cst.ImportFrom):
        return _change_from(statement, actions)
    changed = [(alias, action) for alias, action in actions.items() if isinstance(action, str)]
    if Fate.DROPPED not in actions.values():
        return ImportChange([_renamed_part(alias, path) for alias, path in changed])
    remaining = [
        _import_item(alias, action)
        for alias, action in actions.items()
        if action is not Fate.DROPPED
    ]
    return ImportChange([], [f"import {', '.join(remaining)}"] if remaining else [])


def _renamed_part(alias: cst.ImportAlias, path: str) -> tuple[cst.CSTNode, str]:
    if alias.asname is not None:
        return alias.name, path
    return alias.name, f"{path} as {alias.evaluated_name.partition('.')[0]}"


def _import_item(alias: cst.ImportAlias, action: Action) -> str:
    old = alias.evaluated_name
    local = alias.evaluated_alias or (old.partition(".")[0] if isinstance(action, str) else None)
    path = action if isinstance(action, str) else old
    return f"{path} as {local}" if local else path


def _change_from(
    statement: cst.ImportFrom, actions: Mapping[cst.ImportAlias, Action]
) -> ImportChange:
    assert statement.module is not None
    module = imported_from(statement)
    items = [_from_item(str(module), *each) for each in actions.items()]
    placed = [item for item in items if item is not None]
    parents = list(dict.fromkeys(parent for parent, _ in placed))
    names_stay = all(
        not isinstance(action, str) or action.rpartition(".")[2] == dotted_name(alias.name)
        for alias, action in actions.items()
    )
    if len(placed) == len(items) and len(parents) == 1 and names_stay:
        same = parents[0] == module
        return ImportChange([] if same else [(statement.module, parents[0])])
    kept_first = sorted(parents, key=lambda parent: parent != module)
    statements = [
        f"from {parent} import {', '.join(item for each, item in placed if each == parent)}"
        for parent in kept_first
    ]
    return ImportChange([], statements)


def _from_item(module: str, alias: cst.ImportAlias, action: Action) -> tuple[str, str] | None:
    """Returns the module and the item of a `from` import; None if there is to be none."""
    if action is Fate.DROPPED:
        return None
    path = action if isinstance(action, str) else f"{module}.{alias.evaluated_name}"
    parent, _, name = path.rpartition(".")
    local = alias.evaluated_alias or alias.evaluated_name
    explicit = local != name or alias.asname is not None
    return parent, f"{name} as {local}" if explicit else name
