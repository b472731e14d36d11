"""`Changes`: the lock of some bookkeeping, and the news that it has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Changes(threading.Condition):
    """The lock of some bookkeeping; threads and event loops wait for its changes.

    A thread waits with `wait_for`, as with any condition. An event loop cannot: it listens, see
    `services.wakeups`.
    """

    def __init__(self) -> None:
        super().__init__(threading.RLock())
        self._listeners: tuple[Callable[[], None], ...] = ()

    def listen(self, listener: Callable[[], None]) -> None:
        """Registers a function for each change, called by the changing thread; it must not wait."""
        self._listeners = (*self._listeners, listener)

    def notify_all(self) -> None:
        """Wakes the threads that wait, and calls the listeners."""
        super().notify_all()
        for listener in self._listeners:
            listener()
