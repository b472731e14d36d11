"""Places of TensorFlow 1's names now: the mapping in `names.toml`, lookups, reports, tables."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from typing import Any, NamedTuple

_DATA: dict[str, Any] = tomllib.loads(
    resources.files(__package__).joinpath("names.toml").read_text()
)
REMEDIES: dict[str, str] = _DATA["remedies"]
"""The remedies for names without a place, by the longest listed prefix."""
_RESPELLED: dict[str, str] = _DATA["respelled"] | {
    f"{each['folder']}.{file}": each["public"]
    for each in _DATA["files"]
    for file in each["files"].split()
}
BEGIN = "<!-- names: made by paramserve.migrate.names -->"
END = "<!-- end of names -->"


class Namespace(NamedTuple):
    """A module of TensorFlow 1 with names that exist in a module of `paramserve`."""

    old: str
    """The module as scripts wrote it, with `tf` for TensorFlow: "tf.contrib.training"."""
    new: str
    """The module to import now: "paramserve.contrib.training"."""
    names: tuple[str, ...]
    """The moved names, the same in both modules."""
    whole: bool = True
    """Everything public of the old module moved, so the module itself may be passed around."""


class Place(NamedTuple):
    """The present place of a name."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """Module and name: "paramserve.train.Saver"."""
        return f"{self.module}.{self.name}"


NAMESPACES = tuple(
    Namespace(each["old"], each["new"], tuple(each["names"].split()), not each.get("partly"))
    for each in _DATA["namespace"]
)
"""Every module whose names have a place in paramserve."""


_PLACES = {
    f"{namespace.old}.{name}": Place(namespace.new, name)
    for namespace in NAMESPACES
    for name in namespace.names
}

_MODULES = {namespace.old: namespace.new for namespace in NAMESPACES if namespace.whole}


def canonical(path: str) -> str:
    """Returns the public name, beginning with `tf`, for any way of writing it.

    "tensorflow.compat.v1.train.Saver" is "tf.train.Saver";
    "tensorflow.contrib.model_pruning.python.pruning.Pruning" is "tf.contrib.model_pruning.Pruning".
    """
    for prefix in _prefixes(path):
        if prefix in _RESPELLED:
            return canonical(_RESPELLED[prefix] + path[len(prefix) :])
    return path


def place(path: str) -> tuple[Place, str] | None:
    """Finds the present place of a canonical path.

    Args:
        path: A path made `canonical`; it may continue beyond a public name, as
            "tf.train.Saver.restore" does.

    Returns:
        The place of the name in it, and the rest (".restore"); None if it has none.
    """
    for prefix in _prefixes(path):
        if prefix in _PLACES:
            return _PLACES[prefix], path[len(prefix) :]
    return None


def module_place(path: str) -> str | None:
    """Returns the present place of a whole module; None if it, or a part of it, has none."""
    return _MODULES.get(path)


def _prefixes(path: str) -> list[str]:
    """Returns the path and its parents, longest first."""
    parts = path.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


class Finding(NamedTuple):
    """One name that was left unchanged."""

    line: int
    """Counted from 1, as is `column`."""
    column: int
    name: str
    """Its documented name: "tf.contrib.slim.conv2d", however the script wrote it."""
    remedy: str


def remedy(name: str) -> str:
    """Returns the remedy for a canonical name that has no place."""
    if ".python." in name:
        return _private_remedy(name)
    parts = name.split(".")
    known = (REMEDIES.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
    return next((each for each in known if each), "is not in TensorFlow 2's tf.compat.v1")


def _private_remedy(name: str) -> str:
    last = name.rpartition(".")[2]
    public = place(f"tf.train.{last}")
    if public is not None and not public[1]:
        return f"is private to TensorFlow: use {public[0].path}"
    return "is private to TensorFlow: use the public name"


def format_findings(path: str, findings: Iterable[Finding]) -> list[str]:
    """Formats a line for each name: FILE:LINE:COLUMN, name, remedy, and other places."""
    by_name: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings):
        by_name.setdefault((finding.name, finding.remedy), []).append(finding)
    lines = []
    for (name, advice), (first, *others) in by_name.items():
        also = ", ".join(f"{each.line}:{each.column}" for each in others)
        position = f"{path}:{first.line}:{first.column}"
        lines.append(f"{position}: {name}: {advice}{f' (also {also})' if also else ''}")
    return lines


def updated(document: str) -> str:
    """Returns a document with the tables between its two marks updated.

    Raises:
        ValueError: The document has no such marks.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no {BEGIN!r} with {END!r} after it")
    modules = dict.fromkeys(namespace.old for namespace in NAMESPACES)
    tables = "\n\n".join(_table(module) for module in modules)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def _table(module: str) -> str:
    rows = sorted(
        f"| `{module}.{name}` | `{namespace.new}.{name}` |"
        for namespace in NAMESPACES
        if namespace.old == module
        for name in namespace.names
    )
    return "\n".join([f"### `{module}`", "", "| TensorFlow 1 | now |", "|---|---|", *rows])
