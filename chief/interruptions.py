"""Losses of parameter servers and moves to others, each until steps are made again."""

from __future__ import annotations

import time
from collections.abc import Callable


class Interruptions:
    """The interruptions of one run of a job, for its status and metrics.

    Args:
        clock: Seconds from any origin.

    Attributes:
        recoveries: Losses of parameter servers that this run has recovered from.
        recovery_secs: How long the newest recovery took, from the loss to the next step.
        recovered_step: The global step that it went back to.
        resizes: Changes of the number of parameter servers in this run.
        resize_secs: How long steps stood still for the newest one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lost_at: float | None = None
        self._moved_at: float | None = None
        self.recoveries = 0
        self.recovery_secs = 0.0
        self.recovered_step = 0
        self.resizes = 0
        self.resize_secs = 0.0

    @property
    def is_awaiting_step(self) -> bool:
        """True while the first step after a loss or a move is awaited."""
        return self._lost_at is not None or self._moved_at is not None

    def begin_recovery(self) -> None:
        """Notes that a server was missed; a recovery under way continues."""
        if self._lost_at is None:
            self._lost_at = self._clock()

    def begin_move(self, began: float) -> None:
        """Notes since when steps stand still for a move to other servers, by the clock."""
        self._moved_at = began

    def end_recovery(self, step: int) -> bool:
        """Counts a recovery, after which steps are made again; false if there was none.

        Args:
            step: The global step that it went back to.
        """
        if self._lost_at is None:
            return False
        self.recovery_secs, self.recovered_step = self._clock() - self._lost_at, step
        self._lost_at = None
        self.recoveries += 1
        return True

    def end_move(self) -> bool:
        """Counts a move, after which steps are made again; false if there was none."""
        if self._moved_at is None:
            return False
        self.resize_secs, self._moved_at = self._clock() - self._moved_at, None
        self.resizes += 1
        return True
