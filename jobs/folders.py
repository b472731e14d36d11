"""The log directory of a job that is about to start: writable, and in use by no other job."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..cluster.status_client import refuse_live_job
from ..cluster.token import Token, remove_tokens, write_tokens
from ..errors import UsageError


@contextmanager
def use_folders(logdir: str, logs: Path) -> Iterator[None]:
    """Holds the folders of a job, and refuses at once what the chief would refuse later.

    Args:
        logdir: The log directory; a URL is for the chief to try.
        logs: Folder of the processes' logs, on this host.

    Raises:
        UsageError: They cannot be written, or another job runs or starts there.
    """
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--logdir {logdir!r} is not writable: {error.strerror}") from error
    if not os.access(logs.parent, os.W_OK) or not os.access(logs, os.W_OK):
        raise UsageError(f"--logdir {logdir!r} is not writable")
    if "://" not in logdir:
        refuse_live_job(logdir)
    descriptor = os.open(logs, os.O_RDONLY)
    try:
        _lock(descriptor, logdir)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def keep_tokens(logdir: str, logs: Path, token: Token) -> Iterator[None]:
    """Keeps the tokens of a job in its log directory while it runs, for its owner alone.

    Args:
        logdir: The log directory; tokens of one that is a URL lie in the folder of logs.
        logs: Folder of the processes' logs, on this host.
        token: The secret of the job.

    Raises:
        UsageError: They cannot be written.
    """
    try:
        place = write_tokens(logs if "://" in logdir else Path(logdir), token)
    except OSError as error:
        raise UsageError(f"--logdir {logdir!r} is not writable: {error.strerror}") from error
    try:
        yield
    finally:
        with suppress(OSError):
            remove_tokens(place)


def _lock(descriptor: int, logdir: str) -> None:
    """Locks the job's folder until its chief answers; the lock ends with the process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(
            f"another job starts or ends in --logdir {logdir!r} right now: wait for it, or give "
            "another directory"
        ) from error
    except OSError:
        pass  # A file system without locks: the chief looks again.
