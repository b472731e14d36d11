"""The time after which a wait for gradients counts as a stall."""

from __future__ import annotations

import time
from collections.abc import Callable

# A step may take so many times as long as those before it.
_PATIENCE = 3.0
# The longest step weighs less with each further one, so a slow phase does not count forever.
_FORGETTING = 0.9


class StallClock:
    """Tells when a job has made no global step for too long.

    Args:
        lease_secs: Seconds that a step may take in any case.
        clock: Seconds, from any origin.
    """

    def __init__(self, lease_secs: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_secs = lease_secs
        self._clock = clock
        self._since = clock()
        self._step: int | None = None
        self._longest = 0.0
        self._is_clean = False

    def is_stalled(self, step: int) -> bool:
        """Whether the job is at this global step for longer than steps take here."""
        now = self._clock()
        if step != self._step:
            # The wait before the first step, or one that was cut short, says nothing of a step.
            if self._is_clean:
                self._longest = max(now - self._since, _FORGETTING * self._longest)
            self._is_clean = self._step is not None
            self._step, self._since = step, now
            return False
        return now - self._since > max(self._lease_secs, _PATIENCE * self._longest)

    def restart(self) -> None:
        """Begins another wait, after something was done about the stall."""
        self._since, self._is_clean = self._clock(), False
