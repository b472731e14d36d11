"""From `MODULE_OR_FILE:function` to the build function it names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import cast

from ..errors import UsageError
from .spec import BuildFn

FORM = (
    "expected MODULE:FUNCTION or FILE.py:FUNCTION, for example examples/census/wide_deep.py:build"
)


# Terminal colours, which Keras puts around the cause of an error.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def split_reference(reference: str) -> tuple[str, str]:
    """Splits a reference into the module (or file) and the function's name.

    Raises:
        UsageError: It has no function part, or the file or top-level module does not exist.
            For a file, also when it defines no such name. Nothing is imported to find out.
    """
    target, _, name = reference.rpartition(":")
    if not target or not name.isidentifier():
        raise UsageError(f"model {reference!r}: {FORM}")
    if _is_file(target):
        _check_file(Path(target), name)
    else:
        _find_module(target)
    return target, name


def load_build(reference: str) -> BuildFn:
    """Imports the module or file and returns the function.

    Raises:
        UsageError: As `split_reference`, or the name is missing or no function, or the
            module's own import failed.
    """
    target, name = split_reference(reference)
    try:
        module = _import_file(Path(target)) if _is_file(target) else importlib.import_module(target)
    except Exception as error:
        raise UsageError(f"importing {target!r} failed: {describe(error)}") from error
    function = getattr(module, name, None)
    if function is None:
        raise UsageError(f"{target!r} has no {name!r}; it defines: {_callables(module)}")
    if not callable(function):
        raise UsageError(f"{reference!r} is a {type(function).__name__}, expected a function")
    return cast(BuildFn, function)


def describe(error: BaseException) -> str:
    """One line for a user's error: its type, message, and the place in the user's own code."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if "site-packages" not in filename and not filename.startswith("<"):
            place = f" ({filename}:{trace.tb_lineno})"
        trace = trace.tb_next
    lines = [line for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Exception encountered when calling"):
        lines = [_keras_cause(lines[1:])]
    return f"{type(error).__name__}: {lines[0].strip() if lines else ''}{place}"


def _keras_cause(lines: Sequence[str]) -> str:
    """What Keras says between "Exception encountered" and the arguments that it lists."""
    told = itertools.takewhile(lambda line: not line.startswith("Arguments received by"), lines)
    return _COLOUR.sub("", " ".join(line.strip() for line in told))


def _is_file(target: str) -> bool:
    return target.endswith(".py") or "/" in target


def _check_file(path: Path, name: str) -> None:
    if not path.is_file():
        raise UsageError(f"model file {str(path)!r} does not exist (looked in {Path.cwd()})")
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        raise UsageError(f"{path}:{error.lineno}: {error.msg}") from error
    names, open_ended = _top_level_names(tree)
    if name not in names and not open_ended:
        known = ", ".join(sorted(n for n in names if not n.startswith("_"))) or "nothing"
        raise UsageError(f"{str(path)!r} has no {name!r}; it defines: {known}")


def _top_level_names(tree: ast.Module) -> tuple[set[str], bool]:
    """Names bound at the top level, and whether there may be more than can be seen."""
    names: set[str] = set()
    open_ended = False
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
            open_ended |= any(alias.name == "*" for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound = (name for target in targets for name in ast.walk(target))
            names.update(name.id for name in bound if isinstance(name, ast.Name))
        elif not isinstance(node, ast.Expr):
            open_ended = True
    return names, open_ended


def _find_module(target: str) -> None:
    _add_working_directory()
    try:
        found = importlib.util.find_spec(target.split(".")[0])
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise UsageError(
            f"module {target!r} was not found: is it installed, or in {Path.cwd()}? {FORM}"
        )


def _import_file(path: Path) -> ModuleType:
    # As `python FILE` does, so that the file's neighbours can be imported.
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _add_working_directory() -> None:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def _callables(module: ModuleType) -> str:
    own = (n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
    return ", ".join(sorted(own)) or "nothing"
