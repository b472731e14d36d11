"""`Wakeups`: waits of the control server's coroutines for changes that other threads make."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from ..changes import Changes

Found = TypeVar("Found")


class Relay:
    """Calls a function in an event loop when bookkeeping has changed, once a turn of the loop.

    Args:
        call: Called in the loop.
        changes: The bookkeeping, which may change in any thread.
    """

    def __init__(self, call: Callable[[], None], *changes: Changes) -> None:
        self._call = call
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_due = False
        for each in changes:
            each.listen(self._notify)

    def attach(self) -> asyncio.AbstractEventLoop:
        """Calls in the loop that runs now; all calls of this have to come from the same."""
        self._loop = self._loop or asyncio.get_running_loop()
        return self._loop

    def _notify(self) -> None:
        """Called by any thread, while it holds the lock of the bookkeeping."""
        if self._loop is None or self._is_due:
            return
        self._is_due = True
        with contextlib.suppress(RuntimeError):  # The loop is closed: nothing waits any more.
            self._loop.call_soon_threadsafe(self._relay)

    def _relay(self) -> None:
        self._is_due = False
        self._call()


class Wakeups:
    """Waits for changes: a coroutine that waits costs no thread.

    Args:
        changes: Tell when to look again.
        key: Returns a value that differs when waiters have to look; None: they always have to.

    Attributes:
        count: Turns of the loop in which something had changed.
    """

    def __init__(self, changes: Changes, key: Callable[[], object] | None = None) -> None:
        self._key = key
        self._last: object = None
        self._woken: asyncio.Event | None = None
        self._relay = Relay(self._wake, changes)
        self.count = 0

    async def wait_for(
        self, found: Callable[[], Found | None], timeout_secs: float
    ) -> Found | None:
        """Waits until `found` gives something, and returns that; None when time ran out."""
        loop = self._relay.attach()
        deadline = loop.time() + timeout_secs
        while True:
            # Read before the look, so that changes during it are noticed.
            woken = self._woken = self._woken or asyncio.Event()
            if (value := found()) is not None:
                return value
            left = deadline - loop.time()
            if left <= 0:
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await woken.wait()

    async def wait_beyond(self, count: int, timeout_secs: float) -> None:
        """Waits until `count` is more than so many."""
        await self.wait_for(lambda: self.count > count or None, timeout_secs)

    def _wake(self) -> None:
        self.count += 1
        key = self._key() if self._key is not None else None
        if self._woken is not None and (self._key is None or key != self._last):
            self._woken.set()
            self._woken = None
        self._last = key
