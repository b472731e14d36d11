"""References to build functions, `MODULE_OR_FILE:function`: their checks, and their loading."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Collection
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import cast

from ..errors import UsageError
from ..reasons import as_failure
from .spec import BuildFn

FORM = (
    "expected MODULE:FUNCTION or FILE.py:FUNCTION, for example examples/census/wide_deep.py:build"
)


def split_reference(reference: str) -> tuple[str, str]:
    """Splits a reference into the module (or file) and the function's name.

    Raises:
        UsageError: It has no function part, the file or module does not exist, or its source
            defines no such name.
    """
    target, _, name = reference.rpartition(":")
    if not target or not name.isidentifier():
        raise UsageError(f"model {reference!r}: {FORM}")
    if target.endswith(".ipynb"):
        raise UsageError(
            f"model {reference!r}: a notebook cannot be imported; save the cell of {name!r} as a "
            "file, for example with `%%writefile model.py` as its first line, and name that file"
        )
    if (file := find_source(target)) is not None:
        _check_names(target, file, name)
    return target, name


def is_file(target: str) -> bool:
    """Returns whether the first part of a reference names a file rather than a module."""
    return target.endswith(".py") or "/" in target


def find_source(target: str) -> Path | None:
    """Returns the source file behind the first part of a reference; None for a module without one.

    Raises:
        UsageError: There is no such file or module.
    """
    if is_file(target):
        file = Path(target)
        if not file.is_file():
            raise UsageError(f"model file {str(file)!r} does not exist (looked in {Path.cwd()})")
        return file
    spec = _find_module(target)
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def nearest(name: str, known: Collection[str]) -> str:
    """Returns a question for the known name closest to a wrong one; empty if none is close."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else ""


def missing_name(target: str, name: str, known: Collection[str]) -> UsageError:
    """Returns the error of a module or file that lacks a name."""
    public = sorted(each for each in known if not each.startswith("_"))
    hint = nearest(name, public)
    return UsageError(
        f"{target!r} has no {name!r}{f': {hint} It' if hint else '; it'} defines: "
        f"{', '.join(public) or 'nothing'}"
    )


def _find_module(target: str) -> ModuleSpec | None:
    """Finds a module without importing its packages, which may load TensorFlow."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if target in sys.modules:  # Some exist only there, as `os.path` does.
        return sys.modules[target].__spec__
    first, *rest = target.split(".")
    try:
        spec = find_spec(first)
    except (ImportError, ValueError):
        spec = None
    name = first
    for part in rest:
        if spec is None:
            break
        name = f"{name}.{part}"
        # By its last name alone: by the whole one Python looks for its packages among the imported.
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations or ()))
    if spec is None:
        missing = "" if name == target else f" (there is no {name!r})"
        raise UsageError(
            f"module {target!r} was not found{missing}: is it installed, or in {Path.cwd()}? {FORM}"
        )
    return spec


def _check_names(target: str, file: Path, name: str) -> None:
    if file.suffix != ".py":
        return  # Compiled.
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError as error:
        raise UsageError(f"{file}:{error.lineno}: {error.msg}") from error
    names, open_ended = _top_level_names(tree)
    if name not in names and not open_ended:
        raise missing_name(target, name, names)


def _top_level_names(tree: ast.Module) -> tuple[set[str], bool]:
    """Returns names bound at the top level, and whether there may be more."""
    names: set[str] = set()
    open_ended = False
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            open_ended |= node.name == "__getattr__"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
            open_ended |= any(alias.name == "*" for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            open_ended |= any(isinstance(target, ast.Subscript) for target in targets)
            bound = (name for target in targets for name in ast.walk(target))
            names.update(name.id for name in bound if isinstance(name, ast.Name))
        elif not isinstance(node, ast.Expr):
            open_ended = True
    return names, open_ended


def load_build(reference: str) -> BuildFn:
    """Imports the module or file and returns the function.

    Raises:
        UsageError: As `split_reference`, or the name is missing or no function, or the
            module's own import failed.
    """
    target, name = split_reference(reference)
    try:
        module = _import_file(Path(target)) if is_file(target) else importlib.import_module(target)
    except UsageError:
        raise  # It says where.
    except Exception as error:
        raise as_failure(f"importing {target!r} failed", error, UsageError) from error
    function = getattr(module, name, None)
    if function is None:
        own = [each for each, value in vars(module).items() if callable(value)]
        raise missing_name(target, name, own)
    if not callable(function):
        raise UsageError(f"{reference!r} is a {type(function).__name__}, expected a function")
    return cast(BuildFn, function)


def _import_file(path: Path) -> ModuleType:
    """Imports a file by itself, or as part of its package if it has relative imports."""
    # As `python FILE` does, so that the file's neighbours can be imported.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        return _import_alone(path)
    except ImportError as error:
        name, root = _place_in_package(path.resolve())
        if "relative import" not in str(error) or "." not in name:
            raise
        del sys.modules[path.stem]
    sys.path.append(str(root))
    return importlib.import_module(name)


def _import_alone(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _place_in_package(path: Path) -> tuple[str, Path]:
    """Returns the full name of a file's module, and the folder that its outermost package is in."""
    name, folder = path.stem, path.parent
    while (folder / "__init__.py").is_file():
        name, folder = f"{folder.name}.{name}", folder.parent
    return name, folder
