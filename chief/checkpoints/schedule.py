"""The times of checkpoints, and the limit of their duration.

Pure bookkeeping: no network, no TensorFlow, and the clock is a parameter.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# After a checkpoint that was not written: until the next try, twice as long after each one.
RETRY_SECS = 5.0
MAX_RETRY_SECS = 300.0


class SaveSchedule:
    """The schedule of a job's checkpoints.

    Args:
        global_step: Gives the newest known global step.
        every_secs: Seconds between two checkpoints; None: none by time.
        every_steps: Global steps between two checkpoints; None: none by steps.
        max_wait_secs: How long a save may take before it counts as failed.
        retry_secs: Seconds from the first failure to the next try.
        clock: Seconds from any origin.

    Attributes:
        max_wait_secs: As given.
    """

    def __init__(
        self,
        global_step: Callable[[], int],
        *,
        every_secs: float | None = None,
        every_steps: int | None = None,
        max_wait_secs: float = 600.0,
        retry_secs: float = RETRY_SECS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._global_step = global_step
        self._every_secs = every_secs
        self._every_steps = every_steps
        self.max_wait_secs = max_wait_secs
        self._retry_secs = retry_secs
        self._clock = clock
        self._failures = 0
        self._retry_at = 0.0
        self._saved_at = clock()
        self._saved_step = global_step()

    @property
    def is_due(self) -> bool:
        """True if a checkpoint is to be written now."""
        if self._every_secs is None and self._every_steps is None:
            return False
        if self._failures:
            return not self.retry_in_secs
        steps = self._global_step() - self._saved_step
        if steps <= 0:
            return False
        if self._every_steps is not None and steps >= self._every_steps:
            return True
        waited = self._clock() - self._saved_at
        return self._every_secs is not None and waited >= self._every_secs

    @property
    def retry_in_secs(self) -> float:
        """Seconds until the next try, after a failure."""
        return max(0.0, self._retry_at - self._clock())

    def note_saved(self, step: int) -> None:
        """Notes that a checkpoint of a global step was written."""
        self._failures = 0
        self._saved_at, self._saved_step = self._clock(), step

    def note_failure(self) -> None:
        """Notes that a checkpoint was not written."""
        secs = min(self._retry_secs * 2**self._failures, MAX_RETRY_SECS)
        self._failures += 1
        self._retry_at = self._clock() + secs
