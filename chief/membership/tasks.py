"""One life of a task, as the chief knows it, and what may become of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from ...cluster.spec import Task
from ...protos import membership_pb2 as pb


class TaskState(enum.StrEnum):
    """What became of a task.

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
        session_generation: The generation that it was last told to be ready; 0 while it asks for
            one.
        is_dismissed: Whether it is told to leave, though the job goes on.
        leave_session: A worker's session that it should give up, by the number in its report; 0:
            none.
        is_told: Whether it has heard that it was taken as gone.
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
        """Whether it holds its lease."""
        return self.state in (TaskState.UP, TaskState.SPARE)

    @property
    def is_free_spare(self) -> bool:
        """Whether it stands by to take a place."""
        return self.state is TaskState.SPARE and not self.is_dismissed
