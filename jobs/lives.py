"""The lives of a job's tasks, and which of them their launcher knows to have ended."""

from __future__ import annotations

from ..protos import status_pb2 as pb
from .launch.interface import Launcher, ProcessHandle, ProcessSpec

# States of tasks that the chief counts as alive.
_ALIVE = ("up", "spare")


class Lives:
    """Starter of processes, with the record which life of a task each of them is.

    A chief that learns of an end may be lost before it has written that down, so that the next one
    does not know it. So nothing is ticked off: the chief's current status decides.

    Args:
        launcher: Starts the processes.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._handles: dict[str, ProcessHandle] = {}
        self._chiefs: dict[str, str] = {}

    def start(self, spec: ProcessSpec, chief: str = "") -> ProcessHandle:
        """Starts a process and returns at once.

        Args:
            spec: The process to start.
            chief: Address at which it looks for the chief; empty for the chief itself.
        """
        self._handles[spec.incarnation] = handle = self._launcher.start(spec)
        if chief:
            self._chiefs[spec.incarnation] = chief
        return handle

    def find_ended(self, status: pb.JobStatus) -> list[str]:
        """Finds lives that the chief takes for alive, though their process has ended.

        Returns:
            Their incarnations, each once: a process may be several tasks.
        """
        believed = {task.incarnation for task in status.tasks if task.state in _ALIVE}
        return sorted(life for life in believed if self._has_ended(life))

    def take_stranded(self, status: pb.JobStatus, chief: str) -> list[ProcessHandle]:
        """Finds processes that have not joined, and look for the chief at a former address.

        Once a task has joined, the log directory tells it of a chief that moved.

        Args:
            status: The job's status, from the chief.
            chief: Address of that chief.

        Returns:
            The running ones among them, each once.
        """
        joined = {task.incarnation for task in status.tasks}
        elsewhere = [life for life, where in self._chiefs.items() if where != chief]
        for life in elsewhere:
            del self._chiefs[life]
        return [
            self._handles[life]
            for life in elsewhere
            if life not in joined and self._handles[life].poll() is None
        ]

    def _has_ended(self, life: str) -> bool:
        handle = self._handles.get(life)
        return handle is not None and handle.poll() is not None
