"""Names that the installed TensorFlow offers, looked up in TensorFlow itself."""

from __future__ import annotations

import importlib
import types
from typing import Any

PRIVATE = ("core", "examples", "models", "python", "tools")
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
