"""`ControlFigures`: whether the chief keeps up with its tasks."""

from __future__ import annotations

import time
from collections.abc import Callable

RECENT_SECS = 10.0
# A chief that was so late lately says so.
LATE_SECS = 1.0


class ControlFigures:
    """The delay of the control server.

    Args:
        clock: Seconds from any origin.

    Attributes:
        extended_secs: Seconds by which leases were extended, as reports were not taken.
        newest_lag_secs: The newest delay of its event loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._worst: tuple[float, float] = (-RECENT_SECS, 0.0)
        self.extended_secs = 0.0
        self.newest_lag_secs = 0.0

    def note(self, lag_secs: float, extended_secs: float) -> None:
        """Takes over the newest figures."""
        self.newest_lag_secs, self.extended_secs = lag_secs, extended_secs
        if lag_secs >= self.lag_secs:
            self._worst = self._clock(), lag_secs

    @property
    def lag_secs(self) -> float:
        """The longest delay of the event loop lately."""
        noted_at, secs = self._worst
        return secs if self._clock() - noted_at < RECENT_SECS else self.newest_lag_secs

    def describe(self) -> str:
        """Returns one line for people; empty: the chief keeps up."""
        if self.lag_secs < LATE_SECS:
            return ""
        return (
            f"the chief is behind: its control server was {self.lag_secs:.1f} s late; leases were "
            f"extended by {self.extended_secs:.1f} s in all"
        )
