"""Who is in the job: registration, leases, the generation, and readiness.

Pure bookkeeping behind one lock: no network, no TensorFlow, and the clock is a parameter.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from ...cluster.spec import ClusterView, Member, Role, Task
from ...errors import WaitTimeout
from ...protos import membership_pb2 as pb
from .places import Places
from .tasks import LEFT, TaskRecord, TaskState


class JobClosed(Exception):
    """The job takes no new tasks any more."""


class UnknownTask(Exception):
    """No such life of a task is in the job: it never registered, or its lease ran out."""


_LEFT_WELL = (TaskState.DONE, TaskState.END_OF_INPUT)


class Membership:
    """The tasks of a job and the generation they are in.

    Every method may be called from any thread. `changed` is notified whenever something that a
    waiter may wait for has changed.

    Attributes:
        preemptions: Tasks that left because a signal asked them to, while the job went on, by
            role.
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
        self._places = Places(num_ps, self.heartbeat_age)
        self._ps_on_workers = ps_on_workers
        self._lease_secs = lease_secs
        self._clock = clock
        self._stood_still_secs = stood_still_secs
        self._forgiven_secs = 0.0
        self._generation = 0
        self._layout = 0
        self._view: ClusterView | None = None
        self._ready_generation = 0
        self._suspected = False
        self._over = 0
        self._stopping: set[Role] = set()
        self.preemptions: Counter[str] = Counter()
        self.changed = threading.Condition(threading.RLock())

    # -- what tasks ask for

    def register(
        self,
        role: Role,
        *,
        address: str,
        incarnation: str,
        index: int | None = None,
        metrics_address: str = "",
        pid: int = 0,
        spare: bool = False,
    ) -> Task:
        """Takes a task in; a spare parameter server takes the place of one that was lost, if any.

        Raises:
            TaskHeld: The asked index, or every place of a parameter server, is held.
            JobClosed: The job is ending.
            UsageError: The index is out of range, or the role cannot register.
        """
        with self.changed:
            if self._stopping:
                raise JobClosed("the job is ending")
            if (known := self._places.asking_again(role, index, incarnation)) is not None:
                known.heard = self._clock()
                return known.task
            places = self._places
            task = (
                places.find_spare_place() if spare else places.find_place(role, index, incarnation)
            )
            record = TaskRecord(task, address, incarnation, metrics_address, pid, self._clock())
            places.put(record)
            if spare:
                record.state = TaskState.SPARE
                self._fill_places()
            elif role is Role.PS:
                self._renew_view()
            self.changed.notify_all()
            return record.task

    def heartbeat(self, task: Task, incarnation: str, report: pb.WorkerReport | None) -> Task:
        """Renews the lease of a task, and of what else its process is in the same life.

        Returns:
            What the task is now: a spare may have become one that was lost.

        Raises:
            UnknownTask: This life of the task is not in the job (any more).
        """
        with self.changed:
            record = self._places.life(task, incarnation)
            if record is None:
                raise UnknownTask(f"{task} with incarnation {incarnation} is not in this job")
            if not record.is_alive:
                record.is_told = True
                self.changed.notify_all()
                raise UnknownTask(f"{task} was taken as gone: {record.error or record.state}")
            for each in self.alive():
                if each.incarnation == incarnation:
                    each.heard = self._clock()
            if report is not None:
                record.report = report
            return record.task

    def leave(
        self,
        task: Task,
        incarnation: str,
        reason: pb.LeaveRequest.Reason,
        error: str = "",
        report: pb.WorkerReport | None = None,
    ) -> None:
        """Marks a task as gone for the reason it gives; a second call changes nothing."""
        with self.changed:
            record = self._places.life(task, incarnation)
            if record is None or not record.is_alive:
                return
            record.state = LEFT[reason]
            record.error = error
            if record.state is TaskState.PREEMPTED and not self._stopping:
                self.preemptions[str(record.task.role)] += 1
            if report is not None:
                record.report = report
            self._gone(record)

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
            Whether its generation goes on: all parameter servers were there.
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

    def expire(self) -> list[Task]:
        """Marks tasks whose lease ran out as lost and returns them.

        Leases do not run while the chief stands still itself.
        """
        with self.changed:
            self._forgive(self._stood_still_secs())
            late = [r for r in self.alive() if self._clock() - r.heard > self._lease_secs]
            for record in late:
                self._lose(record, f"not heard of for {self._clock() - record.heard:.1f} s")
            return [record.task for record in late]

    def lose(self, incarnation: str, reason: str, role: Role | None = None) -> list[Task]:
        """Marks the tasks of one life of a process as lost before their lease runs out.

        A process that still lives learns so with its next heartbeat, and ends.

        Args:
            incarnation: The life. Another life of the same task stays as it is.
            reason: For people.
            role: Limits the loss to what the process is in this role; None: all that it is.

        Returns:
            The tasks that it was until now.
        """
        with self.changed:
            lives = [r for r in self.alive(role) if r.incarnation == incarnation]
            for record in lives:
                self._lose(record, reason)
            return [record.task for record in lives]

    def leave_session(self, task: Task, incarnation: str, number: int) -> None:
        """Has a worker open its session anew, if that is still the one of this number."""
        with self.changed:
            record = self._places.get(task)
            if record is not None and record.incarnation == incarnation:
                record.leave_session = number

    @property
    def is_suspected(self) -> bool:
        """Whether a worker's session broke, and nobody has looked since why."""
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
        """Says that the model is lost: nobody should train on what the servers hold now.

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
        """Tells the tasks of a role from an index on to leave, though the job goes on."""
        with self.changed:
            for record in self.up(role):
                record.is_dismissed |= record.task.index >= above
            self.changed.notify_all()

    def begin_stop(self, *roles: Role) -> None:
        """Tells tasks of these roles to end; nobody can join any more."""
        with self.changed:
            self._stopping.update(roles)
            self.changed.notify_all()

    def reopen(self) -> None:
        """Takes back that tasks were told to end: what they had made is lost, and needs them again.

        Those that left as they were told count as lost, so that whoever started them does so again.
        """
        with self.changed:
            for record in self.records():
                is_missed = record.task.role in self._stopping and not record.is_dismissed
                if is_missed and record.state in _LEFT_WELL:
                    record.state = TaskState.LOST
                    record.error = "the model went back to an earlier point after it had left"
            self._stopping.clear()
            self.changed.notify_all()

    def await_gone(self, role: Role, timeout_secs: float) -> bool:
        """Waits until no task of a role is up; false when time ran out."""
        with self.changed:
            return self.changed.wait_for(lambda: not self.alive(role), timeout=timeout_secs)

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

    def has_ended(self, role: Role) -> bool:
        """Whether all tasks of a role have been told to end."""
        return role in self._stopping

    def is_stopping(self, task: Task) -> bool:
        """Whether a task has been told to end."""
        record = self._places.get(task)
        return task.role in self._stopping or (record is not None and record.is_dismissed)

    def records(self, role: Role | None = None) -> list[TaskRecord]:
        """Every task that ever was, by role and index."""
        with self.changed:
            return self._places.records(role)

    def up(self, role: Role | None = None) -> list[TaskRecord]:
        """The tasks that are up."""
        with self.changed:
            return self._places.up(role)

    def alive(self, role: Role | None = None) -> list[TaskRecord]:
        """The tasks that are up, and the spares."""
        with self.changed:
            return self._places.alive(role)

    def unaware(self) -> list[TaskRecord]:
        """Tasks that were taken as gone, and have not been heard of since."""
        return [r for r in self.records() if r.state is TaskState.LOST and not r.is_told]

    def failures(self) -> list[TaskRecord]:
        """Tasks that said the job cannot go on."""
        return [r for r in self.records() if r.state is TaskState.FAILED]

    def heartbeat_age(self, record: TaskRecord) -> float:
        """Seconds since a task was last heard of."""
        return max(0.0, self._clock() - record.heard)

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

    def _forgive(self, stood_still_secs: float) -> None:
        """Takes what the chief could not hear out of the silence of those that it did not hear."""
        more, self._forgiven_secs = stood_still_secs - self._forgiven_secs, stood_still_secs
        if more > 0:
            for record in self.alive():
                record.heard = min(record.heard + more, self._clock())

    def _lose(self, record: TaskRecord, reason: str) -> None:
        record.state = TaskState.LOST
        record.error = reason
        self._gone(record)

    def _gone(self, record: TaskRecord) -> None:
        is_in_view = record.task.role is Role.PS and record.task.index < self.num_ps
        if is_in_view and not self._stopping:
            self._view = None
            self._over = self._generation
            self._fill_places()
        self.changed.notify_all()

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
