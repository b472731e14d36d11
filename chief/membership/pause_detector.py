"""Knows when this process stood still, and could hear nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BEAT_SECS = 0.25
# A busy process beats late, too; what is longer than this is no mere delay.
STANDSTILL_SECS = 1.0


class PauseDetector:
    """Counts the seconds in which this process did not run: stopped, swapped out, or suspended.

    Those who were silent meanwhile may have spoken all the time.

    Args:
        clock: Seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._beat_at = clock()
        self._total = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standstill", daemon=True)

    def start(self) -> None:
        """Starts the thread that beats."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self._thread.join(timeout=5)

    @property
    def is_running(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    def total_secs(self) -> float:
        """Seconds of all standstills so far, also of one that has ended this very moment."""
        with self._lock:
            now = self._clock()
            if now - self._beat_at > STANDSTILL_SECS:
                self._total += now - self._beat_at
            self._beat_at = now
            return self._total

    def _run(self) -> None:
        while not self._ended.wait(BEAT_SECS):
            self.total_secs()
