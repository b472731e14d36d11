"""Prints figures of the code: folders, modules, functions, options, sync mode.

    python scripts/figures.py [FOLDER]

FOLDER is a checkout of the project, by default the one this script lies in. Generated code and
benchmarks are left out. Lines of a function are those without its docstring. An option counts as
written where it is defined or passed on by its name: a field of its type, a parameter with a
default, a keyword that copies it, a string with its name or flag. A read of its value for use does
not count.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

LEFT_OUT = ("benchmarks", "deploy", "docs", "examples", "scripts", "tests")
# Signatures in these files are those of the original API.
ORIGINAL_API = ("contrib", "train")
MOST_PARAMETERS, MOST_IN_CONSTRUCTOR, MOST_METHODS, MOST_LINES = 6, 8, 20, 400
# Modules of synchronous training, in each layout that the project has had.
SYNC = re.compile(
    r"data_plane/sync/|(model/(sync|tokens|accumulators|sparse_mean|stalls)|loops/sync"
    r"|train/sync_\w+|chief/(aggregation|lost_tokens|stalls/lost_tokens))\.py$"
)
# Classes whose fields are the options of a job, in each layout that the project has had.
OPTIONS = ("JobOptions", "ModelOptions", "JobDefaults", "DataPlane")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A module of the package: its path in the checkout, text and syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def folder(self) -> str:
        """The folder at the top level."""
        return self.path.partition("/")[0] if "/" in self.path else "."

    @property
    def lines(self) -> int:
        """Lines of the file."""
        return self.text.count("\n")


def read_modules(root: Path) -> list[Module]:
    """Returns the package's modules that git tracks, without generated code."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=root, check=True, capture_output=True, text=True
    ).stdout.split()
    paths = [path for path in listed if "_pb2" not in path and path.split("/")[0] not in LEFT_OUT]
    texts = {path: (root / path).read_text() for path in paths}
    return [Module(path, text, ast.parse(text)) for path, text in texts.items()]


def main() -> None:
    """Prints all figures."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    modules = read_modules(root if root.is_dir() else root.parents[1])
    print_folders(modules)
    print_modules(modules)
    print_functions(modules)
    print_options(modules)
    sync = [module for module in modules if SYNC.search(module.path)]
    print(f"sync mode: {sum(each.lines for each in sync)} lines in {len(sync)} files")


def print_folders(modules: list[Module]) -> None:
    """Prints files and lines of each folder at the top level."""
    lines: dict[str, list[int]] = defaultdict(list)
    for module in modules:
        lines[module.folder].append(module.lines)
    for folder, sizes in sorted(lines.items()):
        print(f"{folder:12} {len(sizes):4} files {sum(sizes):7,} lines")
    print(f"{'all':12} {len(modules):4} files {sum(each.lines for each in modules):7,} lines")


def print_modules(modules: list[Module]) -> None:
    """Sizes of modules and classes, and names that several modules have."""
    sizes = sorted((module.lines, module.path) for module in modules)
    print(f"module: median {median(size for size, _ in sizes):.0f}, largest", *reversed(sizes[-1]))
    _print_names(f"modules above {MOST_LINES} lines", (p for n, p in sizes if n > MOST_LINES))
    classes = sorted(
        (sum(isinstance(part, Function) for part in node.body), f"{module.path}:{node.name}")
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    )
    _print_names(
        f"classes above {MOST_METHODS} methods", (p for n, p in classes if n > MOST_METHODS)
    )
    stems = Counter(Path(module.path).stem for module in modules)
    twice = (f"{stem} ({n})" for stem, n in stems.items() if n > 1 and not stem.startswith("__"))
    _print_names("module names that occur more than once", twice)


def print_functions(modules: list[Module]) -> None:
    """Lengths of functions, and those with many parameters."""
    lengths, wide, constructors = [], [], []
    for module in modules:
        for node in ast.walk(module.tree):
            if not isinstance(node, Function):
                continue
            lengths.append(_length(node))
            count = sum(1 for _ in _parameters(node))
            if module.folder in ORIGINAL_API:
                continue
            if node.name == "__init__" and count > MOST_IN_CONSTRUCTOR:
                constructors.append(f"{module.path}:{node.lineno} ({count})")
            elif node.name != "__init__" and count > MOST_PARAMETERS:
                wide.append(f"{module.path}:{node.name} ({count})")
    print(
        f"function: median {median(lengths):.0f}, 90th percentile "
        f"{quantiles(lengths, n=10)[-1]:.0f}, largest {max(lengths)} lines"
    )
    _print_names(f"functions with more than {MOST_PARAMETERS} parameters", wide)
    _print_names(f"constructors with more than {MOST_IN_CONSTRUCTOR}", constructors)


def print_options(modules: list[Module]) -> None:
    """Prints in how many files and places each option of a job is written."""
    options = {
        field.target.id: field.annotation
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and node.name in OPTIONS
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }
    if not options:
        return
    own = [module.tree for module in modules if module.folder not in ORIGINAL_API]
    places = [[_places(tree, *option) for tree in own] for option in options.items()]
    files = median(sum(count > 0 for count in found) for found in places)
    total = median(sum(found) for found in places)
    print(f"options: {len(options)}, each written in {files:g} files, {total:g} places (medians)")


def _in_strings(name: str, annotation: ast.expr) -> re.Pattern[str]:
    """Returns a pattern of strings that have the name of an option, or a flag of it."""
    flags = [
        flag
        for node in ast.walk(annotation)
        if isinstance(node, ast.keyword) and node.arg == "flag"
        for flag in str(getattr(node.value, "value", "")).split("/")
    ]
    dashed = name.replace("_", "-")
    any_flag = "|".join({f"--{dashed}", *flags})
    return re.compile(rf"^({name}|{dashed})$|({any_flag})(?![a-z-])")


def _places(tree: ast.Module, name: str, annotation: ast.expr) -> int:
    """Counts places where an option is defined or passed on by its name."""
    text, types = _in_strings(name, annotation), _types(annotation)
    return sum(
        (
            isinstance(node, ast.AnnAssign)
            and getattr(node.target, "id", None) == name
            and bool(types & _types(node.annotation))
        )
        or (isinstance(node, ast.arguments) and name in _with_default(node))
        or (isinstance(node, ast.keyword) and node.arg == name and _has_name(node.value, name))
        or (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and bool(text.search(node.value))
        )
        for node in ast.walk(tree)
    )


def _types(annotation: ast.expr) -> set[str]:
    """Returns the names of the types in an annotation; a field of other ones is another thing."""
    while isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
        if getattr(annotation.value, "id", None) != "Annotated":
            break
        annotation = annotation.slice.elts[0]
    return {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}


def _with_default(arguments: ast.arguments) -> Iterator[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    if arguments.defaults:
        yield from (each.arg for each in positional[-len(arguments.defaults) :])
    for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is not None:
            yield each.arg


def _has_name(value: ast.expr, name: str) -> bool:
    """Returns whether an expression has a variable or an attribute of the name, private or not."""
    return any(
        name in (getattr(node, "id", None), getattr(node, "attr", "").lstrip("_"))
        for node in ast.walk(value)
    )


def _length(function: Function) -> int:
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= (docstring.end_lineno or 0) - docstring.lineno + 1
    return lines


def _parameters(function: Function) -> Iterator[str]:
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if argument.arg not in ("self", "cls"):
            yield argument.arg


def _print_names(what: str, names: Iterator[str] | list[str]) -> None:
    found = list(names)
    print(f"{what}: {len(found)}", *(f"  {name}" for name in found), sep="\n")


if __name__ == "__main__":
    main()
