"""The register of a job's tasks: their lives and their leases.

Pure bookkeeping behind one lock: no network, no TensorFlow, and the clock is a parameter.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

from ...cluster.applicant import Applicant
from ...cluster.spec import Role, Task
from ...protos import membership_pb2 as pb
from ..changes import Changes
from .places import Places
from .tasks import LEFT, TaskRecord, TaskState


class JobClosed(Exception):
    """The job takes no new tasks any more."""


class UnknownTask(Exception):
    """No such life of a task is in the job: it never registered, or its lease ran out."""


class Registry:
    """The tasks of a job and their leases.

    Every method may be called from any thread. `changed` is notified of every change that a waiter
    may wait for; a heartbeat is no such change, and takes no lock.

    Args:
        num_ps: Places of parameter servers.
        lease_secs: Seconds after which a silent task counts as lost.
        clock: Seconds from any origin.
        stood_still_secs: Returns the seconds for which this process was suspended so far.

    Attributes:
        preemptions: Tasks that left after a signal while the job continued, by role.
    """

    def __init__(
        self,
        *,
        num_ps: int,
        lease_secs: float,
        clock: Callable[[], float] = time.monotonic,
        stood_still_secs: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._places = Places(num_ps, self.heartbeat_age)
        self._lease_secs = lease_secs
        self._clock = clock
        self._stood_still_secs = stood_still_secs
        self._forgiven_secs = 0.0
        self._stopping: set[Role] = set()
        self._failed: list[TaskRecord] = []  # The main loop asks for them at each look.
        self.preemptions: Counter[str] = Counter()
        self._touched: set[str] = set()
        # No lease of the present tasks runs out before.
        self._none_due_until = -math.inf
        self.changed = Changes()

    def register(self, applicant: Applicant) -> Task:
        """Registers a task; a spare parameter server takes the place of a lost one, if any.

        Raises:
            TaskHeld: The asked index, or every place of a parameter server, is held.
            JobClosed: The job is ending.
            UsageError: The index is out of range, or as of `Places.check`.
            ValueError: The address is malformed.
        """
        role, index, incarnation = applicant.role, applicant.index, applicant.incarnation
        with self.changed:
            if self._stopping:
                raise JobClosed("the job is ending")
            if (known := self._places.asking_again(role, index, incarnation)) is not None:
                known.heard = self._clock()
                return known.task
            places, spare = self._places, applicant.spare
            address = places.check(applicant)
            task = (
                places.find_spare_place() if spare else places.find_place(role, index, incarnation)
            )
            record = TaskRecord(
                task=task,
                address=address,
                incarnation=incarnation,
                metrics_address=applicant.metrics_address,
                pid=applicant.pid,
                heard=self._clock(),
                state=TaskState.SPARE if spare else TaskState.UP,
            )
            places.put(record)
            self._joined(record)
            self.changed.notify_all()
            return record.task

    def heartbeat(self, task: Task, incarnation: str, report: pb.WorkerReport | None) -> Task:
        """Renews the lease of a task, and of the other tasks of its process in the same life.

        Returns:
            The present task: a spare may have taken the place of a lost server.

        Raises:
            UnknownTask: This life of the task is not in the job (any more).
        """
        record = self._places.life(task, incarnation)
        if record is None:
            raise UnknownTask(f"{task} with incarnation {incarnation} is not in this job")
        if not record.is_alive:
            with self.changed:
                record.is_told = True
                self.changed.notify_all()
            raise UnknownTask(f"{task} was declared lost: {record.error or record.state}")
        now = self._clock()
        for each in self._places.of_life(incarnation):
            each.heard = now
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
        """Marks a task as left, with its reason; a second call changes nothing."""
        with self.changed:
            record = self._places.life(task, incarnation)
            if record is None or not record.is_alive:
                return
            record.state = LEFT[reason]
            record.error = error
            if record.state is TaskState.FAILED:
                self._failed.append(record)
            if record.state is TaskState.PREEMPTED and not self._stopping:
                self.preemptions[str(record.task.role)] += 1
            if report is not None:
                record.report = report
            self._gone(record)

    def expire(self) -> list[Task]:
        """Marks tasks whose lease ran out as lost and returns them.

        Leases do not run while the chief itself is suspended.
        """
        self._forgive(self._stood_still_secs())
        if self._clock() <= self._none_due_until:
            return []
        with self.changed:
            now, alive = self._clock(), self.alive()
            late = [record for record in alive if now - record.heard > self._lease_secs]
            for record in late:
                self._lose(record, f"no heartbeat for {now - record.heard:.1f} s")
            heard = min((record.heard for record in alive if record.is_alive), default=now)
            self._none_due_until = heard + self._lease_secs
            return [record.task for record in late]

    def lose(self, incarnation: str, reason: str, role: Role | None = None) -> list[Task]:
        """Marks the tasks of one life of a process as lost before their lease runs out.

        A process that still lives learns that with its next heartbeat, and ends.

        Args:
            incarnation: The life. Other lives of the same task are not affected.
            reason: The reason, for people.
            role: Limits the loss to the process's tasks in this role; None: all of them.

        Returns:
            The tasks that it had until now.
        """
        with self.changed:
            lives = [
                record
                for record in self._places.of_life(incarnation)
                if record.is_alive and role in (None, record.task.role)
            ]
            for record in lives:
                self._lose(record, reason)
            return [record.task for record in lives]

    def begin_stop(self, *roles: Role) -> None:
        """Tells tasks of these roles to end; no further task can join."""
        with self.changed:
            self._stopping.update(roles)
            self.changed.notify_all()

    def await_gone(self, role: Role, timeout_secs: float) -> bool:
        """Waits until no task of a role is up; false when time ran out."""
        return not self._wait_while(lambda record: record.is_alive, role, timeout_secs)

    def has_ended(self, role: Role) -> bool:
        """Returns whether all tasks of a role have been told to end."""
        return role in self._stopping

    def is_stopping(self, task: Task) -> bool:
        """Returns whether a task has been told to end."""
        record = self._places.get(task)
        return task.role in self._stopping or (record is not None and record.is_dismissed)

    def records(self, role: Role | None = None) -> list[TaskRecord]:
        """Returns every task that ever was, by role and index."""
        with self.changed:
            return self._places.records(role)

    def up(self, role: Role | None = None) -> list[TaskRecord]:
        """Returns the tasks that are up."""
        with self.changed:
            return self._places.up(role)

    def alive(self, role: Role | None = None) -> list[TaskRecord]:
        """Returns the tasks that are up, and the spares."""
        with self.changed:
            return self._places.alive(role)

    def failures(self) -> list[TaskRecord]:
        """Returns tasks that reported that the job cannot continue."""
        with self.changed:
            return [record for record in self._failed if self._places.get(record.task) is record]

    def heartbeat_age(self, record: TaskRecord) -> float:
        """Returns the seconds since a task's last heartbeat."""
        return max(0.0, self._clock() - record.heard)

    def _wait_while(
        self, applies: Callable[[TaskRecord], bool], role: Role, timeout_secs: float
    ) -> list[Task]:
        """Waits until something applies to no task of a role; returns those to which it does.

        Thousands of tasks change one by one: a look is at one task, until that has changed.
        """
        left: list[TaskRecord] = []

        def have_all_changed() -> bool:
            while left and not applies(left[-1]):
                left.pop()
            if not left:
                left.extend(record for record in self._places.records(role) if applies(record))
            return not left

        with self.changed:
            self.changed.wait_for(have_all_changed, timeout=timeout_secs)
            return [record.task for record in left if applies(record)]

    def _forgive(self, stood_still_secs: float) -> None:
        """Extends leases by the time for which this process was suspended."""
        with self.changed:
            more, self._forgiven_secs = stood_still_secs - self._forgiven_secs, stood_still_secs
            for record in self.alive() if more > 0 else ():
                record.heard = min(record.heard + more, self._clock())

    def _lose(self, record: TaskRecord, reason: str) -> None:
        record.state = TaskState.LOST
        record.error = reason
        self._gone(record)

    # -- hooks for generations; the lock is held

    def _joined(self, record: TaskRecord) -> None:
        """Called with each task that was taken in."""

    def _gone(self, record: TaskRecord) -> None:
        """Called with each task that is gone."""
        self._places.note_gone(record)
        self._touched.add(record.incarnation)
        self.changed.notify_all()
