"""`Wakeups`: waits of the control server's coroutines for changes that other threads make."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from ..changes import Changes

Found = TypeVar("Found")


class Wakeups:
    """The event loop's side of `Changes`: a coroutine that waits costs no thread.

    Changes of one turn of the loop wake its waiters once.

    Args:
        changes: Says when to look again.
        key: Gives a value that differs when waiters have to look; None: they always have to.

    Attributes:
        count: Turns of the loop in which something had changed.
    """

    def __init__(self, changes: Changes, key: Callable[[], object] | None = None) -> None:
        self._key = key
        self._last: object = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._is_due = False
        self.count = 0
        changes.listen(self._notify)

    async def wait_for(
        self, found: Callable[[], Found | None], timeout_secs: float
    ) -> Found | None:
        """Waits until `found` gives something, and returns that; None when time ran out.

        To be called in one event loop only.
        """
        self._loop = self._loop or asyncio.get_running_loop()
        deadline = self._loop.time() + timeout_secs
        while True:
            # Taken before the look: what changes meanwhile is noticed.
            woken = self._woken = self._woken or asyncio.Event()
            if (value := found()) is not None:
                return value
            left = deadline - self._loop.time()
            if left <= 0:
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await woken.wait()

    async def wait_beyond(self, count: int, timeout_secs: float) -> None:
        """Waits until `count` is more than so many."""
        await self.wait_for(lambda: self.count > count or None, timeout_secs)

    def _notify(self) -> None:
        """Called by any thread, while it holds the lock of the bookkeeping."""
        if self._loop is None or self._is_due:
            return
        self._is_due = True
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._is_due = False
        self.count += 1
        key = self._key() if self._key is not None else None
        if self._woken is not None and (self._key is None or key != self._last):
            self._woken.set()
            self._woken = None
        self._last = key
