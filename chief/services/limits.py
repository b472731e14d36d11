"""The limits of the control server, so that one caller cannot exhaust it for all."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Tasks that ever were in the job and whose place is not taken again.
MAX_TASKS = 20_000
# Callers of `WatchStatus` in all; and streams of any kind over one connection.
MAX_WATCHERS = 2_000
MAX_STREAMS_PER_PEER = 16_000
# Checkpoints that are asked for and not written yet.
MAX_SAVES = 4
# Of a message; summaries may hold images, and the index of the input's files is larger still.
MAX_REQUEST_BYTES = 1 << 20
MAX_SUMMARY_BYTES = 32 << 20


class TooMuch(Exception):
    """A limit of the control server is exceeded.

    Attributes:
        limit: Its name, as in the metric.
    """

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(message)
        self.limit = limit


LIMITS = (
    "checkpoints under way",
    "message bytes",
    "open streams of a connection",
    "open streams of tasks",
    "open streams of watchers",
    "registered tasks",
)


class Limits:
    """The limits of one control server; used in its event loop only.

    Args:
        on_refused: Called with the name of each limit that was exceeded.
    """

    def __init__(self, on_refused: Callable[[str], None] = lambda _: None) -> None:
        self._on_refused = on_refused
        self._peers: Counter[str] = Counter()
        self.open: Counter[str] = Counter()

    def check(self, limit: str, count: float, most: float, remedy: str) -> None:
        """Checks a count before it grows, or a size.

        Args:
            limit: One of `LIMITS`.
            count: The count.
            most: Its limit.
            remedy: Advice for the caller.

        Raises:
            TooMuch: It is more than `most`.
        """
        if count > most:
            self._on_refused(limit)
            raise TooMuch(limit, f"{limit}: {count:,} is more than {most:,}; {remedy}")

    def check_size(self, size: int, most: int = MAX_REQUEST_BYTES) -> None:
        """Checks the bytes of a message.

        Raises:
            TooMuch: They are more than `most`.
        """
        self.check("message bytes", size, most, "send less in one message")

    @contextmanager
    def stream(self, kind: str, peer: str, most: int) -> Iterator[None]:
        """Counts a stream for as long as it is open.

        Args:
            kind: "tasks" or "watchers".
            peer: The connection.
            most: Streams of that kind.

        Raises:
            TooMuch: There are too many already, of that kind or over that connection.
        """
        self.check(f"open streams of {kind}", self.open[kind] + 1, most, "close some")
        streams = self._peers[peer] + 1
        self.check("open streams of a connection", streams, MAX_STREAMS_PER_PEER, "close some")
        self._peers[peer] += 1
        self.open[kind] += 1
        try:
            yield
        finally:
            self.open[kind] -= 1
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]


def raise_descriptor_limit() -> None:
    """Lets this process open as many files as it may: each task is a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
