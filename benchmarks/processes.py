"""`Processes`: starts the processes of runs, and leaves none behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import Protocol, Self

from ..jobs.launch.forked import ForkServer
from ..jobs.launch.parent import PARENT_VARIABLE, adopt_orphans
from .descendants import end_descendants, find_descendants
from .task import Task

_MODULE = "paramserve.benchmarks.programs.entry"
# Start-up chatter of TensorFlow and Ray would hide what a task says before it fails.
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "RAY_USAGE_STATS_ENABLED": "0"}


class Child(Protocol):
    """A process of a run."""

    @property
    def pid(self) -> int:
        """The process id."""

    def poll(self) -> int | None:
        """Returns the exit code; negative for a signal; None while it runs."""

    def end(self) -> None:
        """Kills it if it still runs, and waits until it is gone."""


class Processes:
    """A context manager for all processes of one or more runs.

    Whatever descends from them ends with them; processes that were there before stay.
    """

    def __init__(self) -> None:
        self._fork_server = ForkServer(
            f"{_MODULE}:run_task", ("tensorflow", "paramserve.train"), _QUIET
        )
        self._children: list[Child] = []
        self._before: list[int] = []

    def __enter__(self) -> Self:
        self._before = find_descendants()
        adopt_orphans(self, True)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._fork_server.close()
            end_descendants(keep=self._before)
        finally:
            adopt_orphans(self, False)

    def start(self, task: Task, *, fork: bool) -> Child:
        """Starts a task.

        Args:
            task: The task.
            fork: True to fork it from a process that has imported TensorFlow; False for a new
            interpreter.
        """
        child = self._fork(task) if fork else _OwnInterpreter(task)
        self._children.append(child)
        return child

    def _fork(self, task: Task) -> Child:
        env = {**os.environ, **_QUIET}
        return self._fork_server.start([task.to_json()], str(task.log_path), env)

    def cpu_secs(self) -> float:
        """Returns the processor seconds that all running processes have used so far."""
        return sum(map(_cpu_secs, find_descendants(keep=self._before)))

    def end_all(self) -> None:
        """Ends all processes started so far, but keeps the fork server."""
        for child in self._children:
            child.end()
        self._children.clear()
        fork_server = self._fork_server.pid
        end_descendants(keep=[*self._before, *([] if fork_server is None else [fork_server])])


_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")


def _cpu_secs(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # User and system time: fields 14 and 15 of proc(5), of which two come before the ")".
    return sum(map(int, fields[11:13])) / _TICKS_PER_SEC


class _OwnInterpreter:
    """A task in a Python interpreter of its own."""

    def __init__(self, task: Task) -> None:
        command = [sys.executable, "-m", _MODULE, task.to_json()]
        with task.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A session of its own: Ctrl-C in the terminal is for the harness.
                start_new_session=True,
                env={**os.environ, **_QUIET, PARENT_VARIABLE: str(os.getpid())},
            )
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.poll()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
