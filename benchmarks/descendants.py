"""Finds and ends the descendants of a run, also those that outlive their parent (Ray's daemons)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection

from ..errors import WaitTimeout


def find_descendants(keep: Collection[int] = ()) -> list[int]:
    """Returns the process ids of this process's children and their children.

    Args:
        keep: Process ids to leave out, with their own descendants.
    """
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (parent := _parent(int(entry))) is not None:
            children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    todo = [os.getpid()]
    while todo:
        new = [pid for pid in children.get(todo.pop(), ()) if pid not in keep]
        found += new
        todo += new
    return found


def end_descendants(keep: Collection[int] = (), timeout_secs: float = 10.0) -> None:
    """Kills all descendants of this process, and waits until they are gone.

    Args:
        keep: See `find_descendants`.
        timeout_secs: Bound of the wait.

    Raises:
        WaitTimeout: Some are still there.
    """
    deadline = time.monotonic() + timeout_secs
    while pids := find_descendants(keep):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            raise WaitTimeout(f"processes {pids} are not gone {timeout_secs:g} s after SIGKILL")
        time.sleep(0.02)


def _parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat") as file:
            # The name, in parentheses, may hold anything.
            return int(file.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
