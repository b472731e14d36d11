"""One life of a task in the chief's records, and its states."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from ...cluster.spec import Task
from ...protos import membership_pb2 as pb


class TaskState(enum.StrEnum):
    """The state of a task.

    ::

        SPARE --(a parameter server is lost)--> UP
        UP, SPARE --(lease ran out, process gone)--> LOST
        UP, SPARE --(left)--> DONE | END_OF_INPUT | FAILED | PREEMPTED
        LOST, DONE, PREEMPTED --(another life registers)--> UP
    """

    SPARE = "spare"
    UP = "up"
    LOST = "lost"
    DONE = "done"
    END_OF_INPUT = "end of input"
    PREEMPTED = "preempted"
    FAILED = "failed"


LEFT = {
    pb.LeaveRequest.DONE: TaskState.DONE,
    pb.LeaveRequest.END_OF_INPUT: TaskState.END_OF_INPUT,
    pb.LeaveRequest.FAILED: TaskState.FAILED,
    pb.LeaveRequest.PREEMPTED: TaskState.PREEMPTED,
}


@dataclass
class TaskRecord:
    """One life of a task.

    Attributes:
        session_generation: The newest generation that it was told is ready; 0 while it asks for
            one.
        is_dismissed: True if it is told to leave while the job continues.
        leave_session: A worker's session that it should give up, by the number in its report; 0:
            none.
        is_told: True if it has learned that it was declared lost.
    """

    task: Task
    address: str
    incarnation: str
    metrics_address: str
    pid: int
    heard: float
    state: TaskState = TaskState.UP
    report: pb.WorkerReport = field(default_factory=pb.WorkerReport)
    error: str = ""
    session_generation: int = 0
    is_dismissed: bool = False
    leave_session: int = 0
    is_told: bool = False

    @property
    def is_alive(self) -> bool:
        """True while it holds its lease."""
        return self.state in (TaskState.UP, TaskState.SPARE)

    @property
    def is_free_spare(self) -> bool:
        """True if it stands by to take a place."""
        return self.state is TaskState.SPARE and not self.is_dismissed
