"""Tasks that said that they have to go soon, and which of them are kept until it is safe."""

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
    """That a parameter server has to go.

    Attributes:
        record: Who.
        deadline: When it goes, whatever the chief says.
    """

    record: TaskRecord
    deadline: Deadline


class Notices:
    """The notices of a job's parameter servers.

    A server is let go by having it leave: then its place is free, and its generation over.

    Args:
        membership: The tasks of the job; its `changed` is notified of each new notice.
        clock: Seconds from any origin.
    """

    def __init__(self, membership: Membership, clock: Callable[[], float] = time.monotonic) -> None:
        self._membership = membership
        self._clock = clock
        self._deadlines: dict[str, Deadline] = {}

    def give(self, task: Task, incarnation: str, grace_secs: float) -> None:
        """Notes that a task has to go; one that holds nothing of the model is let go at once.

        Args:
            task: Who.
            incarnation: Which life of it.
            grace_secs: How long it can stay. Of two notices of one life, the first counts.
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
        """Whether a life of a task may go, or has gone."""
        return self._find(task, incarnation) is None

    def pending(self) -> list[Notice]:
        """The parameter servers that are up, and have to go."""
        return [
            Notice(record, self._deadlines[record.incarnation])
            for record in self._membership.up(Role.PS)
            if record.incarnation in self._deadlines
        ]

    def release(self, notices: Sequence[Notice]) -> None:
        """Lets tasks go."""
        for notice in notices:
            self._let_go(notice.record)

    def remaining_secs(self, record: TaskRecord) -> float:
        """Seconds until a task goes that has given notice; 0.0 for any other."""
        deadline = self._deadlines.get(record.incarnation)
        is_here = record.task.role is Role.PS and record.state is TaskState.UP
        return deadline.remaining_secs() if deadline is not None and is_here else 0.0

    def _find(self, task: Task, incarnation: str) -> TaskRecord | None:
        """A life that is still in the job; a spare may be another task by now."""
        record = self._membership.find_life(task, incarnation)
        return record if record is not None and record.is_alive else None

    def _holds_the_model(self, record: TaskRecord) -> bool:
        """Before the first generation there is no model."""
        is_server = record.task.role is Role.PS and record.state is TaskState.UP
        return is_server and self._membership.generation > 0

    def _let_go(self, record: TaskRecord) -> None:
        # A spare that takes its place changes the task of another record, not of this one.
        self._membership.leave(record.task, record.incarnation, pb.LeaveRequest.PREEMPTED)
