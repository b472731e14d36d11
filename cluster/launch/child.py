"""A `paramserve` process as a child of this one."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path

from .interface import ProcessSpec

PARENT_VARIABLE = "PARAMSERVE_PARENT_PID"
_PR_SET_PDEATHSIG = 1


class ChildProcess:
    """Starts and watches one process.

    Args:
        spec: What to start.
        host: Host name or address under which others reach this host.
    """

    def __init__(self, spec: ProcessSpec, host: str) -> None:
        self.name = spec.name
        self._log_path = Path(spec.log_path)
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        # Its temporary files go with it, however it ends.
        self._temporary = tempfile.mkdtemp(prefix=f"paramserve-{spec.name}-")
        command = [sys.executable, "-m", "paramserve", *spec.arguments, "--host", host]
        env = {
            **os.environ,
            **spec.env,
            "TMPDIR": self._temporary,
            PARENT_VARIABLE: str(os.getpid()),
        }
        with self._log_path.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for the command that launched it.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code; negative for a signal; None while the process runs."""
        return self._process.poll()

    def send_signal(self, signum: int) -> None:
        """Sends a signal; a process that is gone is no error."""
        self._process.send_signal(signum)

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of its output."""
        with self._log_path.open(errors="replace") as log:
            return [line.rstrip("\n") for line in deque(log, maxlen=lines)]

    def read_file(self, path: str) -> str | None:
        """A file on this host; None when there is none."""
        try:
            return Path(path).read_text()
        except FileNotFoundError:
            return None

    def end(self, timeout: float = 5.0) -> None:
        """Kills the process if it still runs, and removes its temporary files."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(timeout)
        shutil.rmtree(self._temporary, ignore_errors=True)


def die_with_parent() -> None:
    """Called first thing in a launched process: whoever launched it takes it along when it dies.

    Without this a launcher that was killed would leave its processes behind.
    """
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        raise SystemExit("the launching process is gone already")


def describe_exit(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
