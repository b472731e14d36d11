"""`PauseDetector`: the time for which this process was suspended, and received nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# A busy process beats late as well; a longer gap than this is a pause.
SHORTEST_PAUSE_SECS = 1.0


class PauseDetector:
    """Counter of the seconds in which this process took no reports: suspended, or far behind.

    Tasks that seem silent for that time may have sent heartbeats throughout, so their leases are
    longer by it. The event loop that takes the reports beats.

    Args:
        clock: Seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._beat_at = clock()
        self._total = 0.0

    def beat(self) -> None:
        """Notes that reports are taken now."""
        with self._lock:
            self._total += self._gap()
            self._beat_at = self._clock()

    def total_secs(self) -> float:
        """Returns the seconds of all pauses so far, including one that lasts."""
        with self._lock:
            return self._total + self._gap()

    def _gap(self) -> float:
        gap = self._clock() - self._beat_at
        return gap if gap > SHORTEST_PAUSE_SECS else 0.0
