"""Loading of the build function that a reference `MODULE_OR_FILE:function` names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import cast

from ..errors import UsageError
from ..reasons import as_failure
from .references import is_file, missing_name, split_reference
from .spec import BuildFn


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
