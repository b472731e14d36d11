"""`ForkServer`: starts TensorFlow tasks without the seconds that importing TensorFlow takes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from typing import Any, Final

from ..errors import WaitTimeout
from .task import Task

_MODULE = "paramserve.benchmarks.programs.fork_server"
# Start-up messages of TensorFlow and Ray would hide the last words of a task that fails.
QUIET: Final = {"TF_CPP_MIN_LOG_LEVEL": "2", "RAY_USAGE_STATS_ENABLED": "0"}
# The import, on a busy machine.
_START_SECS = 120.0
_ANSWER_SECS = 30.0


class ForkServer:
    """A process that has imported TensorFlow and forks tasks; it starts with the first task."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)

    @property
    def pid(self) -> int | None:
        """Its process id, or None as long as there is no process."""
        return self._process.pid if self._process else None

    def start(self, task: Task) -> ForkedTask:
        """Starts a task.

        Raises:
            WaitTimeout: The fork server does not answer.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                start_new_session=True,
                env={**os.environ, **QUIET},
            )
            self._answer(self._process, _START_SECS)
        return ForkedTask(self, self.ask({"start": task.to_json()}))

    def ask(self, order: dict[str, Any]) -> Any:
        """Sends an order and returns its answer."""
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("start() comes first")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer(self._process, _ANSWER_SECS)

    def close(self) -> None:
        """Ends the fork server; the kernel ends its tasks with it."""
        self._log.close()
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def _answer(self, process: subprocess.Popen[str], timeout_secs: float) -> Any:
        assert process.stdout is not None
        # Each answer is one short line, so a read returns whole lines.
        readable, _, _ = select.select([process.stdout], [], [], timeout_secs)
        line = process.stdout.readline() if readable else ""
        if not line:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise WaitTimeout(
                f"the process that starts TensorFlow tasks gave no answer in {timeout_secs:g} s; "
                f"exit code {process.poll()}: {said}"
            )
        return json.loads(line)


class ForkedTask:
    """A task that a fork server started.

    Args:
        fork_server: Its parent.
        pid: Its process id.
    """

    def __init__(self, fork_server: ForkServer, pid: int) -> None:
        self._fork_server = fork_server
        self.pid = pid

    def poll(self) -> int | None:
        """The exit code; negative for a signal; None while it runs."""
        code: int | None = self._fork_server.ask({"poll": self.pid})
        return code

    def end(self) -> None:
        """Kills it if it still runs, and waits until it is gone."""
        self._fork_server.ask({"end": self.pid})
