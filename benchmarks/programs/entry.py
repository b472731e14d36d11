"""Runs one task in this process; also `python -m paramserve.benchmarks.programs.entry TASK`."""

from __future__ import annotations

import ctypes
import importlib
import sys
from typing import NoReturn

from ...jobs.launch.parent import die_with_parent
from ..task import Task

_CLONE_NEWNET = 0x40000000


def enter_network(name: str) -> None:
    """Moves this process to a network namespace, as `ip netns exec` does; threads must not run yet.

    Raises:
        OSError: There is no namespace of that name, or this process may not enter it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {name!r}")


def run_task(text: str) -> NoReturn:
    """Runs the program of a task, given as JSON; it ends only by an error."""
    task = Task.from_json(text)
    if task.network is not None:
        enter_network(task.network)
    program = importlib.import_module(task.program)
    program.run(task)
    raise RuntimeError(f"{task.program} has ended by itself")


if __name__ == "__main__":
    die_with_parent()
    run_task(sys.argv[1])
