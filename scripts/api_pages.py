#!/usr/bin/env python3
"""Writes docs/api: a page for each public module, with every public name.

    python scripts/api_pages.py --write | --check

Griffe reads signatures and docstrings from the source, without importing it; griffe2md renders
them. TensorFlow's own names are listed with a link to TensorFlow's documents. `--check` writes
nothing and fails when a page is out of date.
"""

from __future__ import annotations

import ast
import difflib
import logging
import re
import sys
import tempfile
from pathlib import Path

import griffe
import griffe2md

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs/api"
PACKAGE = "paramserve"
MODULES = (
    "paramserve",
    "paramserve.train",
    "paramserve.contrib.learn",
    "paramserve.contrib.training",
    "paramserve.contrib.model_pruning",
    "paramserve.contrib.slim",
    "paramserve.migrate",
)
TENSORFLOW = "https://www.tensorflow.org/api_docs/python/tf/"
WRITTEN = "Written by `scripts/api_pages.py` from the docstrings."
RENDERING = griffe2md.ConfigDict(
    heading_level=2,
    inherited_members=False,
    show_if_no_docstring=False,
    show_root_heading=True,
    summary=False,
)

Object = griffe.Object | griffe.Alias


class PlainTypes(griffe.Extension):
    """Shows `Annotated[int, Option(...)]` as `int`: the docstring says the rest."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: object) -> None:
        """Replaces the annotation of an attribute."""
        found = attr.annotation
        if isinstance(found, griffe.ExprSubscript) and str(found.left) == "Annotated":
            attr.annotation = found.slice.elements[0]


def load() -> Object:
    """Returns the package of this checkout, whatever the checkout's folder is called."""
    for name in ("griffe", "griffe2md"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / PACKAGE).symlink_to(ROOT)
        return griffe.load(
            PACKAGE,
            search_paths=[folder],
            docstring_parser="google",
            resolve_aliases=True,
            extensions=griffe.load_extensions(PlainTypes),
        )


def public_names(module: Object) -> list[str]:
    """Returns `__all__` and the names imported with `import X as X`; modules come last."""
    source = "\n".join(module.lines_collection[module.filepath])
    again = [
        name.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if name.asname == name.name
    ]
    names = {*map(str, module.exports or []), *again} - {"__version__"}
    return sorted(names, key=lambda name: (name in module.modules, name.lower(), name))


def sections(module: Object, path: str, places: dict[str, str]) -> tuple[list[str], list[str]]:
    """Returns sections of our own names, and table rows of TensorFlow's.

    `places` has, by an object's own path, the name under which the page already shows it.
    """
    ours, theirs = [], []
    for name in public_names(module):
        member, here = module.members[name], f"{path}.{name}"
        try:
            member = member.final_target if member.is_alias else member
        except griffe.AliasResolutionError as error:
            theirs.append(_row(here, error.alias.target_path.removeprefix("tensorflow.")))
            continue
        if member.is_module:
            inner, others = sections(member, here, places)
            ours += [f"## `{here}`", _docstring(member), *inner]
            theirs += others
        elif member.is_attribute and str(member.value).startswith("tf."):
            theirs.append(_row(here, str(member.value).removeprefix("tf.")))
        elif member.path in places:
            ours += [f"## `{here}`", f"The same as `{places[member.path]}`."]
        elif member.is_attribute:
            says = _docstring(member) or f"Another name of `{path}.{member.value}`."
            ours += [f"## `{here}`", says]
        else:
            places[member.path] = here
            ours.append(_rendered(member, here))
    return ours, theirs


def page(module: Object, path: str) -> str:
    """Returns the whole page of one module."""
    ours, theirs = sections(module, path, {})
    parts = [f"# `{path}`", WRITTEN, _docstring(module), *ours]
    if theirs:
        table = ["| name | TensorFlow's |", "|---|---|", *theirs]
        parts += ["## TensorFlow's own names", "\n".join(table)]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def pages() -> dict[str, str]:
    """Returns the pages, by file name."""
    package = load()
    found = {}
    index = ["# The API", "", WRITTEN, "", "| module | contents |", "|---|---|"]
    for path in MODULES:
        inner = path.removeprefix(PACKAGE).removeprefix(".")
        module = package[inner] if inner else package
        found[f"{path}.md"] = page(module, path)
        index.append(f"| [`{path}`]({path}.md) | {_docstring(module).splitlines()[0]} |")
    return {"README.md": "\n".join(index) + "\n", **found}


def main(argument: str) -> int:
    """Writes or compares; returns the exit code."""
    wanted = pages()
    if argument == "--write":
        PAGES.mkdir(exist_ok=True)
        for old in PAGES.glob("*.md"):
            old.unlink()
        for name, text in wanted.items():
            (PAGES / name).write_text(text)
        return 0
    there = {file.name: file.read_text() for file in PAGES.glob("*.md")}
    for name in sorted({*wanted, *there}):
        old, new = (texts.get(name, "").splitlines() for texts in (there, wanted))
        sys.stderr.writelines(
            f"{line}\n"
            for line in difflib.unified_diff(
                old, new, f"docs/api/{name}", "docstrings", lineterm=""
            )
        )
    if wanted != there:
        print("error: docs/api is out of date: run scripts/api_pages.py --write", file=sys.stderr)
    return int(wanted != there)


def _row(here: str, original: str) -> str:
    return f"| `{here}` | [`tf.{original}`]({TENSORFLOW}{original.replace('.', '/')}) |"


def _docstring(member: Object) -> str:
    return member.docstring.value if member.docstring else ""


def _rendered(member: Object, here: str) -> str:
    """Renders signature and docstring under the public path, without links to other pages."""
    text = griffe2md.render_object_docs(member, RENDERING)
    text = re.sub(r"\[([^\[\]\n]+)\]\(#[^)\n]*\)", r"\1", text)
    return text.replace(f"`{member.path}", f"`{here}")


if __name__ == "__main__":
    if sys.argv[1:] not in (["--write"], ["--check"]):
        sys.exit("usage: scripts/api_pages.py --write | --check")
    sys.exit(main(sys.argv[1]))
