"""The newest step and the stalls of a job, in figures."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class StallFigures:
    """The figures that a status shows.

    Attributes:
        diagnosis: The tasks without a step and those that wait for them, for people; empty while
            steps are made.
        count: Stalls of this run.
        stepped_at: Monotonic time of the newest global step; None while the job does not train.
    """

    diagnosis: str = ""
    count: int = 0
    stepped_at: float | None = None

    @property
    def secs_since_step(self) -> float:
        """Seconds since the newest global step; 0 while the job does not train."""
        return time.monotonic() - self.stepped_at if self.stepped_at is not None else 0.0
