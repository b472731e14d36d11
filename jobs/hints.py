"""Commands that people can type next, in a form that works in their shell."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def show_command(program: str, *arguments: str) -> str:
    """Returns a command line for a program that was installed with this package.

    Args:
        program: As "paramserve" or "tensorboard".
        *arguments: Its arguments.

    Returns:
        The program by its name if a shell finds this one so, else by its path.
    """
    beside = Path(sys.executable).with_name(program)
    found = shutil.which(program)
    is_known = found is not None and Path(found).resolve() == beside.resolve()
    name = program if is_known or not beside.exists() else _shortest(beside)
    return shlex.join([name, *arguments])


def describe_running_job(logdir: str, *, is_command: bool = True) -> list[str]:
    """Lists the commands for a running job, a line each.

    Args:
        logdir: Its log directory.
        is_command: True if `paramserve run` runs it, which Ctrl-C ends gracefully.
    """
    lines = [
        "while it runs, in another terminal:",
        f"  tasks:  {show_command('paramserve', 'status', '--logdir', logdir)}",
        f"  curves: {show_command('tensorboard', '--logdir', logdir)}",
    ]
    if is_command:
        lines.append("Ctrl-C ends it with a checkpoint; the same command continues from there")
    return lines


def _shortest(path: Path) -> str:
    folder = Path.cwd()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
