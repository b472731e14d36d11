"""Clocks without a step, of each worker and of the job, and their limits."""

from __future__ import annotations

from ...protos import membership_pb2 as pb
from .diagnosis import WorkerObservation

# A step may take so many times as long as those before it.
_PATIENCE = 3.0
_FORGETTING = 0.9
# A first step compiles, and reads the first of the input; a hook may evaluate or export the model.
FIRST_FACTOR = 5.0
# The first step of a later session fills buffers again.
AGAIN_FACTOR = 2.0
_LONG_WORK = (pb.WorkerReport.UNKNOWN, pb.WorkerReport.OPENING, pb.WorkerReport.BETWEEN)


class ProgressClock:
    """Knows how long a count has stood still, and how long it usually does.

    Args:
        now: Seconds from any origin.

    Attributes:
        count: The newest count; None before the first.
        is_first: Whether it has not gone up since the last new beginning.
    """

    def __init__(self, now: float) -> None:
        self.count: int | None = None
        self.is_first = True
        self._since = now
        self._longest = 0.0

    def note(self, now: float, count: int) -> bool:
        """Takes in a count; returns whether it has grown."""
        before, self.count = self.count, count
        if count == before:
            return False
        has_risen = before is not None and count > before
        if has_risen:
            steps = count - (before or 0)
            each = (now - self._since) / steps
            self._longest = max(each, self._longest * _FORGETTING**steps)
            self.is_first = False
        self._since = now
        return has_risen

    def restart(self, now: float) -> None:
        """Restarts the wait."""
        self._since = now

    def age(self, now: float) -> float:
        """Returns the seconds for which it has stood still."""
        return now - self._since

    @property
    def usual_secs(self) -> float:
        """Seconds for which it may stand still, to go by its past."""
        return _PATIENCE * self._longest


class WorkerProgress:
    """The progress of one life of a worker.

    Args:
        now: Seconds from any origin.

    Attributes:
        was_reopened: True if it hung before, and had to reopen its session.
    """

    def __init__(self, now: float) -> None:
        self._steps = ProgressClock(now)
        self._sessions = 0
        self._doing: int = pb.WorkerReport.UNKNOWN
        self._has_stepped = False
        self._is_new_session = True
        self.was_reopened = False

    def note(self, now: float, worker: WorkerObservation) -> bool:
        """Takes in how far the worker is; whether it has made a step."""
        made = self._steps.note(now, worker.local_steps)
        if worker.sessions != self._sessions:
            self._is_new_session = True
        if (worker.sessions, worker.doing) != (self._sessions, self._doing):
            self._sessions, self._doing = worker.sessions, worker.doing
            self.restart(now)
        if made:
            self._is_new_session = False
        self._has_stepped = worker.local_steps > 0
        return made

    def restart(self, now: float) -> None:
        """Restarts the wait."""
        self._steps.restart(now)

    def age(self, now: float) -> float:
        """Returns the seconds for which it has stood still."""
        return self._steps.age(now)

    def patience(self, stall_secs: float) -> float:
        """Returns the seconds that a step may take now."""
        factor = 1.0
        if not self._has_stepped or self._doing in _LONG_WORK:
            factor = FIRST_FACTOR
        elif self._is_new_session:
            factor = AGAIN_FACTOR
        return max(factor * stall_secs, self._steps.usual_secs)
