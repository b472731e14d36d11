"""`Changes`: the lock of some bookkeeping, and the news that it has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Of the work between two looks: a thread looks for a fifth of the time at most.
_PAUSE_RATIO = 4.0


class Changes(threading.Condition):
    """The lock of some bookkeeping; threads and event loops wait for its changes.

    A thread waits with `wait_for`, as with any condition. An event loop cannot: it listens, see
    `services.wakeups`.

    Attributes:
        count: The number of changes so far.
    """

    def __init__(self) -> None:
        super().__init__(threading.RLock())
        self._listeners: tuple[Callable[[], None], ...] = ()
        self.count = 0

    def listen(self, listener: Callable[[], None]) -> None:
        """Registers a function for each change, called by the changing thread; it must not wait."""
        self._listeners = (*self._listeners, listener)

    def notify_all(self) -> None:
        """Wakes the threads that wait, and calls the listeners."""
        self.count += 1
        super().notify_all()
        for listener in self._listeners:
            listener()


class Looks:
    """The looks of one thread at bookkeeping: soon after a change, yet seldom enough.

    Thousands of tasks make thousands of changes at once, for example when a generation ends. A
    thread that looked at all tasks after each of them would keep the event loop from answering.

    Args:
        changes: The lock of the bookkeeping.
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._began = time.thread_time()

    def wait(self, timeout_secs: float) -> None:
        """Waits for a change, and for a while that grows with the work since the last wait."""
        seen = self._changes.count
        pause_secs = _PAUSE_RATIO * (time.thread_time() - self._began)
        time.sleep(min(pause_secs, timeout_secs))
        with self._changes:
            if self._changes.count == seen and pause_secs < timeout_secs:
                self._changes.wait(timeout_secs - pause_secs)
        self._began = time.thread_time()
