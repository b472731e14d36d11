"""Runs one task in this process; also `python -m paramserve.benchmarks.programs.entry TASK`."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
from typing import NoReturn

from ..task import Task

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent is gone.

    Args:
        parent: Process id of the parent.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the starting process is gone already")


def enter_network(name: str) -> None:
    """Moves this process to a network namespace, as `ip netns exec` does; threads must not run yet.

    Raises:
        OSError: There is no namespace of that name, or this process may not enter it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {name!r}")


def run_task(task: Task) -> NoReturn:
    """Runs the task's program, which ends only by an error."""
    if task.network is not None:
        enter_network(task.network)
    program = importlib.import_module(task.program)
    program.run(task)
    raise RuntimeError(f"{task.program} has ended by itself")


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    run_task(Task.from_json(sys.argv[1]))
