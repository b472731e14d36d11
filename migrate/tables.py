"""The tables of names in the guide to migration, made from the names that are rewritten."""

from __future__ import annotations

from .names import NAMESPACES

BEGIN = "<!-- names: made by paramserve.migrate.tables -->"
END = "<!-- end of names -->"


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
