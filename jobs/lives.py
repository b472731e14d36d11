"""The lives of a job's tasks, and which of them their launcher knows to have ended."""

from __future__ import annotations

from ..cluster.launch.interface import Launcher, ProcessHandle, ProcessSpec
from ..protos import status_pb2 as pb

# States in which the chief takes a task for alive.
_ALIVE = ("up", "spare")


class Lives:
    """Starts processes, and remembers which life of a task each of them is.

    A chief that is told of an end may be lost before it has written that down, and the next one
    does not know it. So nothing is ticked off: what counts is what the chief says now.

    Args:
        launcher: Starts the processes.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._handles: dict[str, ProcessHandle] = {}

    def start(self, spec: ProcessSpec) -> ProcessHandle:
        """Starts a process and returns at once."""
        self._handles[spec.incarnation] = handle = self._launcher.start(spec)
        return handle

    def find_ended(self, status: pb.JobStatus) -> list[str]:
        """Finds lives that the chief takes for alive, though their process has ended.

        Returns:
            Their incarnations, each once: a process may be several tasks.
        """
        believed = {task.incarnation for task in status.tasks if task.state in _ALIVE}
        return sorted(life for life in believed if self._has_ended(life))

    def _has_ended(self, life: str) -> bool:
        handle = self._handles.get(life)
        return handle is not None and handle.poll() is not None
