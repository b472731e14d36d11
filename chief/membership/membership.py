"""The readiness of the model, sessions of workers, and dismissals.

Pure bookkeeping behind one lock: no network, no TensorFlow, and the clock is a parameter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ...cluster.spec import ClusterView, Role, Task
from ...errors import WaitTimeout
from .registry import JobClosed
from .tasks import TaskRecord, TaskState
from .views import Views

# Tasks that a text for people names.
MOST_NAMED = 10
_LEFT_WELL = (TaskState.DONE, TaskState.END_OF_INPUT)


@dataclass(frozen=True)
class Wanted:
    """The model that a task waits for.

    Attributes:
        min_generation: The oldest generation of use to the caller.
        lost_generation: The generation in which the caller's session broke; 0: none did. If it
            is this one, nothing is ready until the chief has looked (`cleared`).
        before_ready: True to wait for the servers of a later generation only, and not until the
            model is initialized there; the caller asks again for that.
        task: The asking task, which has no session now.
    """

    min_generation: int
    lost_generation: int = 0
    before_ready: bool = False
    task: Task | None = None


class Membership(Views):
    """The tasks of a job, their generation, and the right to train in it; see `Views`."""

    _ready_generation = 0
    _suspected = False
    _dismissals = 0

    # -- for tasks

    def note_wanted(self, wanted: Wanted) -> None:
        """Notes that a task begins to wait: it has no session, and may suspect a server."""
        with self.changed:
            record, lost = self._waiting(wanted), wanted.lost_generation
            has_left = record is not None and record.session_generation
            if record is not None:
                record.session_generation = 0
            is_suspect = bool(lost) and lost == self._ready_generation and not self._suspected
            self._suspected |= is_suspect
            if has_left or is_suspect:
                self.changed.notify_all()

    def find_ready(self, wanted: Wanted) -> ClusterView | None:
        """Returns the view that a task waits for; None while there is none.

        Raises:
            JobClosed: The job is ending.
        """
        with self.changed:
            record = self._waiting(wanted)
            if self._is_over_for(record):
                raise JobClosed("the job is ending")
            if self._is_early(wanted):
                return self._view
            if not self._is_ready(wanted.min_generation):
                return None
            if record is not None and not wanted.before_ready:
                record.session_generation = self._generation
            return self._view

    @property
    def common_news(self) -> tuple[object, ...]:
        """A value that changes when there is news for every task."""
        return self._generation, self._over, tuple(self._stopping)

    @property
    def readiness(self) -> object:
        """A value that changes when the answer of `find_ready` may change."""
        view, ready, stopping = self._view, self._ready_generation, tuple(self._stopping)
        return view, ready, self._suspected, stopping, self._dismissals

    # -- for the chief

    def leave_session(self, task: Task, incarnation: str, number: int) -> None:
        """Makes a worker open a new session, if its session still has this number."""
        with self.changed:
            record = self._places.get(task)
            if record is not None and record.incarnation == incarnation:
                record.leave_session = number
                self._touched.add(incarnation)
                self.changed.notify_all()

    @property
    def is_suspected(self) -> bool:
        """True if a worker's session broke, and the chief has not looked for the reason since."""
        return self._suspected

    def cleared(self) -> None:
        """Notes that the parameter servers were looked at, and answer."""
        with self.changed:
            if self._suspected:
                self._suspected = False
                self.changed.notify_all()

    def await_view(
        self, min_generation: int, max_wait_secs: float, cancelled: Callable[[], bool]
    ) -> ClusterView | None:
        """Waits for a whole set of parameter servers; None when cancelled.

        Raises:
            WaitTimeout: They were not complete within `max_wait_secs`.
        """
        deadline = time.monotonic() + max_wait_secs
        with self.changed:
            while not cancelled():
                self.expire()
                if self._view is not None and self._view.generation >= min_generation:
                    return self._view
                if time.monotonic() > deadline:
                    raise WaitTimeout(
                        f"max_wait_secs={max_wait_secs:g} ran out: {self.missing()}; "
                        "are they running?"
                    )
                self.changed.wait(0.2)
        return None

    def mark_ready(self, generation: int) -> None:
        """Marks the model as initialized on the parameter servers of `generation`."""
        with self.changed:
            self._ready_generation = generation
            self._suspected = False
            self.changed.notify_all()

    def mark_unready(self, generation: int | None = None) -> None:
        """Marks the model as lost: no worker should train on the servers' present values.

        Args:
            generation: The generation that ends with it; None: the newest. A spare may have begun
                the next one already.
        """
        with self.changed:
            self._ready_generation = 0
            self._over = max(self._over, self._generation if generation is None else generation)
            self.changed.notify_all()

    def await_no_sessions(self, timeout_secs: float) -> list[Task]:
        """Waits until no worker trains in a past generation; returns those that still may."""
        return self._wait_while(
            lambda record: (
                record.state is TaskState.UP and 0 < record.session_generation <= self._over
            ),
            Role.WORKER,
            timeout_secs,
        )

    def dismiss(self, role: Role, above: int) -> None:
        """Tells the tasks of a role from an index on to leave, while the job continues."""
        with self.changed:
            for record in self.up(role):
                if record.task.index >= above and not record.is_dismissed:
                    record.is_dismissed = True
                    self._dismissals += 1
                    self._touched.add(record.incarnation)
                    self.changed.notify_all()

    def reopen(self) -> None:
        """Revokes the order to end: the tasks' work is lost, and has to be done again.

        Tasks that left by that order count as lost, so that their launcher restarts them.
        """
        with self.changed:
            for record in self.records():
                is_missed = record.task.role in self._stopping and not record.is_dismissed
                if is_missed and record.state in _LEFT_WELL:
                    record.state = TaskState.LOST
                    record.error = "the model went back to an earlier point after it had left"
                    self._places.note_gone(record)
            self._stopping.clear()
            self.changed.notify_all()

    # -- state

    def is_first_up(self, task: Task) -> bool:
        """Returns whether it is up, and no task of its role with a lower index is."""
        first = self._places.first_up(task.role)
        return first is not None and first.task == task

    def session_to_leave(self, task: Task) -> int:
        """Returns the number of the session that a worker should give up; 0: none."""
        record = self._places.get(task)
        return record.leave_session if record is not None else 0

    def missing(self) -> str:
        """Describes what the job waits for, for people: tasks, addresses, last heartbeats."""
        with self.changed:
            gaps = list(self._places.describe_gaps(self._ps_on_workers))
            if gaps:
                more = f" and {len(gaps) - MOST_NAMED} more" if len(gaps) > MOST_NAMED else ""
                return "waiting for " + ", ".join(gaps[:MOST_NAMED]) + more
            if self._ready_generation < self._generation:
                return (
                    f"waiting for the chief to initialize the model (generation {self._generation})"
                )
            return "waiting for nothing"

    # -- inner workings; the lock is held

    def _waiting(self, wanted: Wanted) -> TaskRecord | None:
        return self._places.get(wanted.task) if wanted.task is not None else None

    def _is_early(self, wanted: Wanted) -> bool:
        """Returns whether there are new servers for a caller that needs only servers."""
        early_generation = max(wanted.min_generation, wanted.lost_generation + 1)
        return (
            wanted.before_ready
            and self._view is not None
            and self._view.generation >= early_generation
        )

    def _is_over_for(self, record: TaskRecord | None) -> bool:
        return bool(self._stopping) or (record is not None and record.is_dismissed)

    def _is_ready(self, min_generation: int) -> bool:
        return (
            self._view is not None
            and self._ready_generation == self._view.generation
            and self._view.generation >= min_generation
            and not self._suspected
        )
