"""The tie of a launched process to its launcher: it ends with it, however that ends."""

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
    """Makes the kernel end this process with its launcher; to be called first.

    Without this, a killed launcher would leave its processes behind.
    """
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None:
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        raise SystemExit("the launching process is gone already")


def adopt_orphans(adopter: object, wanted: bool) -> None:
    """Decides whether orphaned descendants become children of this process, not init's.

    Args:
        adopter: The object that wants it; they do so while any adopter wants it.
        wanted: Whether it wants it from now on.
    """
    with _lock:
        if wanted:
            _adopters.add(adopter)
        else:
            _adopters.discard(adopter)
        _prctl(_PR_SET_CHILD_SUBREAPER, int(bool(_adopters)))


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
