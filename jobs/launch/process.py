"""Launches the processes of a job on this host, as plain child processes."""

from __future__ import annotations

from ...cluster.address import LOOPBACK
from .child import ChildProcess
from .forked import ForkServer
from .interface import ProcessSpec


class ProcessLauncher:
    """Everything on this host; nothing else needed."""

    def __init__(self) -> None:
        self._forks = ForkServer()
        self._children: list[ChildProcess] = []

    def start(self, spec: ProcessSpec) -> ChildProcess:
        """Starts a process and returns at once."""
        child = ChildProcess(spec, LOOPBACK, self._forks)
        self._children.append(child)
        return child

    def close(self) -> None:
        """Kills all running processes."""
        self._forks.close()
        for child in self._children:
            child.end()
