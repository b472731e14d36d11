"""`PacedCall`: a call in a thread of its own, made when it is due and not too often."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

_END_SECS = 10.0
# A task that joins asks again after 5 s without an answer.
_PATIENCE_SECS = 3.0


class PacedCall:
    """Makes a call soon after it is asked for, and one call for all that asked meanwhile.

    Args:
        call: Made in the thread; it has to deal with its errors.
        pause_ratio: Pause after a call, as a multiple of the time that the call took.
        longest_pause_secs: Bound of that pause in seconds.
    """

    def __init__(
        self,
        call: Callable[[], None],
        pause_ratio: float = 9.0,
        longest_pause_secs: float = 1.0,
    ) -> None:
        self._call = call
        self._pause_ratio = pause_ratio
        self._longest_pause_secs = longest_pause_secs
        self._lock = threading.Lock()
        self._requested: Future[None] | None = None
        self._is_due = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paced-call", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Makes a call that is due, and ends the thread."""
        self._ended.set()
        self._is_due.set()
        self._thread.join(_END_SECS)

    @property
    def is_running(self) -> bool:
        """True if the thread lives."""
        return self._thread.is_alive()

    def request(self) -> Future[None]:
        """Asks for a call, from any thread; returns a future of its end."""
        with self._lock:
            self._requested = requested = self._requested or Future()
            self._is_due.set()
            return requested

    async def make(self) -> None:
        """Asks for a call, and waits for its end; after 3 s the call is left to the thread."""
        await asyncio.wait([asyncio.wrap_future(self.request())], timeout=_PATIENCE_SECS)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._is_due.wait()
            began = time.monotonic()
            self._make()
            pause_secs = self._pause_ratio * (time.monotonic() - began)
            self._ended.wait(min(pause_secs, self._longest_pause_secs))
        self._make()

    def _make(self) -> None:
        with self._lock:
            requested, self._requested = self._requested, None
            if requested is None:
                return
            self._is_due.clear()
        try:
            self._call()
        finally:
            requested.set_result(None)


async def make_nothing() -> None:
    """Stands for `PacedCall.make` where there is nothing to do."""
