"""Temporary folders with a lock of their owner: those of dead owners are removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "paramserve-tmp-"


class TemporaryFolder:
    """A folder that this process owns until it removes it, or ends.

    Folders of killed owners are removed first. An owner holds a lock on its folder, which the
    kernel releases with the process. A process id would not do: it may be that of another process
    by now, or of another container with the same `/tmp`.

    Args:
        name: For people, as part of the folder's name.

    Attributes:
        path: The folder.
    """

    def __init__(self, name: str) -> None:
        remove_stale()
        # Under another name until it is locked, so that it never looks like one without owner.
        made = tempfile.mkdtemp(prefix=f".{PREFIX}{name}-")
        self._lock: int | None = os.open(made, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = str(Path(made).with_name(Path(made).name.removeprefix(".")))
        os.rename(made, self.path)

    def remove(self) -> None:
        """Removes the folder, and those whose owners have ended meanwhile."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        # An owner that was killed may have lived a little longer than the one that it served.
        remove_stale()


def remove_stale() -> None:
    """Removes the folders of this user whose owners have ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.stat().st_uid == os.getuid():
                _remove_without_owner(folder)


def _remove_without_owner(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
