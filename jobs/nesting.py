"""Jobs that would start inside the processes of a job: each process imports the model's file."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from ..errors import UsageError
from ..model.references import find_source

# Environment variable of a task, and so of all processes that it starts.
_TASK_VARIABLE = "PARAMSERVE_TASK"
_REMEDY = (
    "the processes of a job import the file of its model; put the start of the job under "
    '`if __name__ == "__main__":`'
)
_BRANCHES = (ast.If, ast.IfExp, ast.BoolOp, ast.Match)


def mark_task(role: str) -> None:
    """Says that this process is a task of a job."""
    os.environ[_TASK_VARIABLE] = role


def refuse_nested_job(model: str) -> None:
    """Refuses a job that its own processes, or those of `multiprocessing`, would start again.

    Args:
        model: The module or file of the build function.

    Raises:
        UsageError: The job would be started again and again.
    """
    frames = [frame for frame in _frames() if _package_of(frame) != _package_of(sys._getframe())]
    if (role := os.environ.get(_TASK_VARIABLE)) is not None:
        raise UsageError(
            f"{_place(frames[0])} starts a job inside the {role} of another one: {_REMEDY}"
        )
    source = find_source(model)
    for frame in frames:
        is_import = frame.f_code.co_name == "<module>"
        is_spawned = is_import and frame.f_globals.get("__name__") == "__mp_main__"
        if is_spawned or (is_import and _is_unconditional(frame, source)):
            raise UsageError(f"{_place(frame)} starts a job at every import: {_REMEDY}")


def _frames() -> Iterator[FrameType]:
    """Yields the active frames, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _is_unconditional(frame: FrameType, source: Path | None) -> bool:
    """Returns whether a frame is of the model's file, on a line that every import reaches."""
    file = Path(frame.f_code.co_filename)
    if source is None or not file.is_file() or not file.samefile(source):
        return False
    return not any(
        isinstance(node, _BRANCHES) and node.lineno <= frame.f_lineno <= (node.end_lineno or 0)
        for node in ast.walk(ast.parse(file.read_bytes()))
    )
