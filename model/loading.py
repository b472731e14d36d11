"""From `MODULE_OR_FILE:function` to the build function it names."""

from __future__ import annotations

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
from .references import is_file, missing_name, split_reference
from .spec import BuildFn

# Terminal colours, which Keras puts around the cause of an error.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


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
        raise UsageError(f"importing {target!r} failed: {describe(error)}") from error
    function = getattr(module, name, None)
    if function is None:
        own = [each for each, value in vars(module).items() if callable(value)]
        raise missing_name(target, name, own)
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
    """The full name of a file's module, and the folder that its outermost package is in."""
    name, folder = path.stem, path.parent
    while (folder / "__init__.py").is_file():
        name, folder = f"{folder.name}.{name}", folder.parent
    return name, folder
