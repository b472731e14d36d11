"""A launched process ends with the one that launched it, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import threading

PARENT_VARIABLE = "PARAMSERVE_PARENT_PID"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_adopters: set[object] = set()
_lock = threading.Lock()


def die_with_parent() -> None:
    """Called first thing in a launched process: whoever launched it takes it along when it dies.

    Without this a launcher that was killed would leave its processes behind.
    """
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None:
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        raise SystemExit("the launching process is gone already")


def adopt_orphans(adopter: object, wanted: bool) -> None:
    """Says whether descendants whose parent has ended are children of this process, not init's.

    Args:
        adopter: Who wants it; they are, as long as anybody does.
        wanted: Whether it does from now on.
    """
    with _lock:
        if wanted:
            _adopters.add(adopter)
        else:
            _adopters.discard(adopter)
        _prctl(_PR_SET_CHILD_SUBREAPER, int(bool(_adopters)))


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
