"""Preemption notices of tasks, and the tasks kept until their parameters are safe."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...cluster.deadline import Deadline
from ...cluster.spec import Role, Task
from ...protos import membership_pb2 as pb
from .membership import Membership
from .tasks import TaskRecord, TaskState


@dataclass(frozen=True)
class Notice:
    """The notice that a parameter server has to leave.

    Attributes:
        record: The parameter server.
        deadline: The time at which it leaves in any case.
    """

    record: TaskRecord
    deadline: Deadline


class Notices:
    """The notices of a job's parameter servers.

    A released server leaves: then its place is free, and its generation over.

    Args:
        membership: The tasks of the job; its `changed` is notified of each new notice.
        clock: Seconds from any origin.
    """

    def __init__(self, membership: Membership, clock: Callable[[], float] = time.monotonic) -> None:
        self._membership = membership
        self._clock = clock
        self._deadlines: dict[str, Deadline] = {}

    def give(self, task: Task, incarnation: str, grace_secs: float) -> None:
        """Records a notice; a task without a part of the model is released at once.

        Args:
            task: The task.
            incarnation: Its incarnation.
            grace_secs: Seconds that it can stay. Of two notices of one life, the first counts.
        """
        with self._membership.changed:
            record = self._find(task, incarnation)
            if record is None:
                return
            if not self._holds_the_model(record):
                self._let_go(record)
            elif incarnation not in self._deadlines:
                self._deadlines[incarnation] = Deadline.after(grace_secs, self._clock)
                self._membership.changed.notify_all()

    def is_released(self, task: Task, incarnation: str) -> bool:
        """Returns whether a life of a task may leave, or has left."""
        return self._find(task, incarnation) is None

    def pending(self) -> list[Notice]:
        """Returns the parameter servers that are up, and have to go."""
        return [
            Notice(record, self._deadlines[record.incarnation])
            for record in self._membership.up(Role.PS)
            if record.incarnation in self._deadlines
        ]

    def release(self, notices: Sequence[Notice]) -> None:
        """Releases tasks."""
        for notice in notices:
            self._let_go(notice.record)

    def remaining_secs(self, record: TaskRecord) -> float:
        """Returns the seconds until a task with a notice leaves; 0.0 for any other."""
        deadline = self._deadlines.get(record.incarnation)
        is_here = record.task.role is Role.PS and record.state is TaskState.UP
        return deadline.remaining_secs() if deadline is not None and is_here else 0.0

    def _find(self, task: Task, incarnation: str) -> TaskRecord | None:
        """Returns a life that is still in the job; a spare may be another task by now."""
        record = self._membership.find_life(task, incarnation)
        return record if record is not None and record.is_alive else None

    def _holds_the_model(self, record: TaskRecord) -> bool:
        """Returns whether it has a part of the model; before the first generation, none has."""
        is_server = record.task.role is Role.PS and record.state is TaskState.UP
        return is_server and self._membership.generation > 0

    def _let_go(self, record: TaskRecord) -> None:
        # A spare that takes its place changes the task of another record, not of this one.
        self._membership.leave(record.task, record.incarnation, pb.LeaveRequest.PREEMPTED)
