"""From a build function of the running program to a reference that other processes can import."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UsageError


def reference_to(build: Callable[..., Any]) -> str:
    """Returns the reference of a function at the top level of a file.

    Raises:
        UsageError: Other processes cannot import it; the message says why, and the remedy.
    """
    name = getattr(build, "__qualname__", None)
    if not callable(build) or name is None:
        raise UsageError(
            f"model {build!r}: expected a build function, or a reference such as 'model.py:build'"
            + ("; hand arguments to it with params={...}" if hasattr(build, "func") else "")
        )
    if not name.isidentifier():
        raise UsageError(
            f"{name} is no function at the top level of a file, so the job's processes cannot "
            "import it: define it there with `def`, and hand values to it with params={...}"
        )
    module = sys.modules.get(build.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None or not Path(file).is_file():
        raise UsageError(
            f"{name!r} is defined in {_describe_place(build)}, and the job's processes import the "
            "model from a file: save it as one (in a notebook, with `%%writefile model.py` as the "
            f"first line of its cell), and give Job('model.py:{name}', ...)"
        )
    return f"{file}:{name}"


def _describe_place(build: Callable[..., Any]) -> str:
    source = getattr(getattr(build, "__code__", None), "co_filename", "")
    if "ipykernel" in source or "ipython" in source:
        return "a notebook"
    return source if source.startswith("<") else "no existing file"
