"""The generations of a job's tasks: views of the parameter servers, and readiness.

Pure bookkeeping behind one lock: no network, no TensorFlow, and the clock is a parameter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ...cluster.spec import ClusterView, Member, Role, Task
from ...errors import WaitTimeout
from .registry import JobClosed, Registry
from .tasks import TaskRecord, TaskState

_LEFT_WELL = (TaskState.DONE, TaskState.END_OF_INPUT)


class Membership(Registry):
    """The tasks of a job and the generation they are in; see `Registry`.

    Args:
        num_ps: Places of parameter servers.
        lease_secs: Seconds after which a silent task is taken as gone.
        ps_on_workers: Whether workers hold the parameters, for the words of `missing`.
        clock: Seconds from any origin.
        stood_still_secs: Gives the seconds for which this process stood still so far.
    """

    def __init__(
        self,
        *,
        num_ps: int,
        lease_secs: float,
        ps_on_workers: bool = False,
        clock: Callable[[], float] = time.monotonic,
        stood_still_secs: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__(
            num_ps=num_ps, lease_secs=lease_secs, clock=clock, stood_still_secs=stood_still_secs
        )
        self._ps_on_workers = ps_on_workers
        self._generation = 0
        self._layout = 0
        self._view: ClusterView | None = None
        self._ready_generation = 0
        self._suspected = False
        self._over = 0

    # -- what tasks ask for

    def await_ready(
        self,
        min_generation: int,
        timeout_secs: float,
        *,
        lost_generation: int = 0,
        before_ready: bool = False,
        task: Task | None = None,
    ) -> ClusterView | None:
        """Waits until a generation of at least `min_generation` is ready; None when time ran out.

        Args:
            min_generation: The oldest generation of use to the caller.
            timeout_secs: How long to wait.
            lost_generation: The generation in which the caller's session broke; 0: none did. If it
                is this one, nothing is ready until the chief has looked (`cleared`).
            before_ready: Whether to wait for the servers of a later generation only, and not until
                the model is initialized there; the caller asks again for that.
            task: Who asks, and has no session now.

        Raises:
            JobClosed: The job is ending.
        """
        with self.changed:
            record = self._places.get(task) if task is not None else None
            if record is not None:
                record.session_generation = 0
            if lost_generation and lost_generation == self._ready_generation:
                self._suspected = True
            self.changed.notify_all()
            early_generation = max(min_generation, lost_generation + 1)

            def found() -> ClusterView | None:
                if (
                    before_ready
                    and self._view is not None
                    and self._view.generation >= early_generation
                ):
                    return self._view
                return self._view if self._is_ready(min_generation) else None

            self.changed.wait_for(
                lambda: self._is_over_for(record) or found() is not None, timeout=timeout_secs
            )
            if self._is_over_for(record):
                raise JobClosed("the job is ending")
            if record is not None and not before_ready and found() is not None:
                record.session_generation = self._generation
            return found()

    def await_over(self, generation: int, timeout_secs: float) -> int:
        """Waits until a generation above `generation` is over, and returns the newest that is."""
        with self.changed:
            self.changed.wait_for(lambda: self._over > generation, timeout=timeout_secs)
            return self._over

    # -- what the chief does

    def adopt(
        self, generation: int, records: list[TaskRecord], num_ps: int | None = None, layout: int = 0
    ) -> bool:
        """Takes over the tasks of an earlier chief, with a whole lease each.

        Returns:
            Whether its generation continues: all parameter servers were there.
        """
        with self.changed:
            self._places.num_ps, self._layout = num_ps or self.num_ps, layout
            for record in records:
                record.heard = self._clock()
                record.session_generation = generation if record.task.role is Role.WORKER else 0
                self._places.put(record)
            self._generation = generation - 1
            self._renew_view()
            return self._view is not None

    def leave_session(self, task: Task, incarnation: str, number: int) -> None:
        """Makes a worker open a new session, if its session still has this number."""
        with self.changed:
            record = self._places.get(task)
            if record is not None and record.incarnation == incarnation:
                record.leave_session = number

    @property
    def is_suspected(self) -> bool:
        """Whether a worker's session broke, and the chief has not looked for the reason since."""
        return self._suspected

    def cleared(self) -> None:
        """Says that the parameter servers were looked at, and answer."""
        with self.changed:
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
        """Says that the model is initialized on the parameter servers of `generation`."""
        with self.changed:
            self._ready_generation = generation
            self._suspected = False
            self.changed.notify_all()

    def mark_unready(self, generation: int | None = None) -> None:
        """Marks the model as lost: no worker should train on what the servers hold now.

        Args:
            generation: The generation that is over with that; None: the newest. A spare may have
                begun the next one already.
        """
        with self.changed:
            self._ready_generation = 0
            self._over = max(self._over, self._generation if generation is None else generation)
            self.changed.notify_all()

    def await_no_sessions(self, timeout_secs: float) -> list[Task]:
        """Waits until no worker trains in a past generation; returns those that still may."""

        def late() -> list[Task]:
            return [r.task for r in self.up(Role.WORKER) if 0 < r.session_generation <= self._over]

        with self.changed:
            self.changed.wait_for(lambda: not late(), timeout=timeout_secs)
            return late()

    def renew_generation(self) -> None:
        """Starts a new generation with the same parameter servers, whose state is not used."""
        with self.changed:
            self._renew_view()

    def candidates(self, num_ps: int) -> tuple[Member, ...] | None:
        """The servers for another number of places: those of the view, then spares.

        Returns:
            The servers; None while there are too few of them, or one of the view is lost.
        """
        with self.changed:
            if self._view is None:
                return None
            free = [Member(r.address, r.incarnation) for r in self._places.spares()]
            servers = (*self._view.ps, *free)[:num_ps]
            return servers if len(servers) == num_ps else None

    def resize(self, servers: Sequence[Member]) -> None:
        """Begins a generation in which the model is spread over other servers; see `candidates`.

        A spare takes the place in which it is listed, and a server that is not listed any more is
        dismissed. One that was lost meanwhile is missing in its place.
        """
        with self.changed:
            self._places.resize(servers)
            self._layout += 1
            self._renew_view()
            self._fill_places()

    def dismiss(self, role: Role, above: int) -> None:
        """Tells the tasks of a role from an index on to leave, while the job continues."""
        with self.changed:
            for record in self.up(role):
                record.is_dismissed |= record.task.index >= above
            self.changed.notify_all()

    def reopen(self) -> None:
        """Takes back that tasks were told to end: what they had made is lost, and needs them again.

        Those that left as they were told count as lost, so that their launcher starts them again.
        """
        with self.changed:
            for record in self.records():
                is_missed = record.task.role in self._stopping and not record.is_dismissed
                if is_missed and record.state in _LEFT_WELL:
                    record.state = TaskState.LOST
                    record.error = "the model went back to an earlier point after it had left"
            self._stopping.clear()
            self.changed.notify_all()

    # -- what is asked of it

    @property
    def generation(self) -> int:
        """The newest generation; 0 before all parameter servers have come for the first time."""
        return self._generation

    @property
    def view(self) -> ClusterView | None:
        """The parameter servers of the newest generation; None while one is missing."""
        return self._view

    @property
    def num_ps(self) -> int:
        """Places of parameter servers."""
        return self._places.num_ps

    @property
    def layout(self) -> int:
        """Counts the changes of `num_ps`."""
        return self._layout

    def session_to_leave(self, task: Task) -> int:
        """The number of the session that a worker should give up; 0: none."""
        record = self._places.get(task)
        return record.leave_session if record is not None else 0

    def missing(self) -> str:
        """What the job waits for, for people: tasks, addresses, last heartbeats."""
        with self.changed:
            gaps = list(self._places.describe_gaps(self._ps_on_workers))
            if gaps:
                return "waiting for " + ", ".join(gaps)
            if self._ready_generation < self._generation:
                return (
                    f"waiting for the chief to initialize the model (generation {self._generation})"
                )
            return "waiting for nothing"

    # -- inner workings; the lock is held

    def _is_over_for(self, record: TaskRecord | None) -> bool:
        return bool(self._stopping) or (record is not None and record.is_dismissed)

    def _is_ready(self, min_generation: int) -> bool:
        return (
            self._view is not None
            and self._ready_generation == self._view.generation
            and self._view.generation >= min_generation
            and not self._suspected
        )

    def _joined(self, record: TaskRecord) -> None:
        if record.state is TaskState.SPARE:
            self._fill_places()
        elif record.task.role is Role.PS:
            self._renew_view()

    def _gone(self, record: TaskRecord) -> None:
        is_in_view = record.task.role is Role.PS and record.task.index < self.num_ps
        if is_in_view and not self._stopping:
            self._view = None
            self._over = self._generation
            self._fill_places()
        super()._gone(record)

    def _fill_places(self) -> None:
        if self._places.fill():
            self._renew_view()

    def _renew_view(self) -> None:
        servers = self.up(Role.PS)
        if len(servers) < self.num_ps:
            self._view = None
            return
        self._generation += 1
        members = tuple(Member(r.address, r.incarnation) for r in servers)
        self._view = ClusterView(self._generation, members, self._layout)
        self.changed.notify_all()
