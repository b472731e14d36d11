"""`PacedCall`: a call in a thread of its own, made when it is due and not too often."""

from __future__ import annotations

import threading
from collections.abc import Callable

_END_SECS = 10.0


class PacedCall:
    """Makes a call soon after it is asked for, and one call for all that asked meanwhile.

    Args:
        call: Made in the thread; it has to deal with its errors.
        pace_secs: Seconds between two calls.
    """

    def __init__(self, call: Callable[[], None], pace_secs: float = 1.0) -> None:
        self._call = call
        self._pace_secs = pace_secs
        self._is_requested = False
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

    def request(self) -> None:
        """Asks for a call, from any thread, without waiting for it."""
        self._is_requested = True
        self._is_due.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._is_due.wait()
            self._make()
            self._ended.wait(self._pace_secs)
        self._make()

    def _make(self) -> None:
        if self._is_requested:
            self._is_due.clear()
            self._is_requested = False
            self._call()
