"""`PauseDetector`: the time for which this process was suspended and received no messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BEAT_SECS = 0.25
# A busy process beats late as well; a longer gap than this is a pause.
SHORTEST_PAUSE_SECS = 1.0


class PauseDetector:
    """Counter of the seconds in which this process did not run: stopped, swapped out, suspended.

    Tasks that seem silent for that time may have sent heartbeats throughout.

    Args:
        clock: Seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._beat_at = clock()
        self._total = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pause-detector", daemon=True)

    def start(self) -> None:
        """Starts the thread that beats."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self._thread.join(timeout=5)

    @property
    def is_running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def total_secs(self) -> float:
        """Returns the seconds of all pauses so far, including one that has just ended."""
        with self._lock:
            now = self._clock()
            if now - self._beat_at > SHORTEST_PAUSE_SECS:
                self._total += now - self._beat_at
            self._beat_at = now
            return self._total

    def _run(self) -> None:
        while not self._ended.wait(BEAT_SECS):
            self.total_secs()
