"""A `paramserve` process as a child of this one."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from .forked import ForkServer
from .interface import ProcessSpec
from .temporary import TemporaryFolder


class ChildProcess:
    """One process, started and watched.

    Args:
        spec: The process to start.
        host: Host name or address under which other machines reach this one.
        forks: Starts the process.
    """

    def __init__(self, spec: ProcessSpec, host: str, forks: ForkServer) -> None:
        self.name = spec.name
        self._log_path = Path(spec.log_path)
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log_path.touch()
        # Its temporary files go with it, however it ends.
        self._temporary = TemporaryFolder(spec.name)
        env = {**os.environ, **spec.env, "TMPDIR": self._temporary.path}
        self._process = forks.start(spec.command(host), spec.log_path, env, spec.niceness)

    @property
    def pid(self) -> int:
        """The process id; waits until there is one."""
        return self._process.pid

    def poll(self) -> int | None:
        """Returns the exit code; negative for a signal; None while the process runs."""
        return self._process.poll()

    def send_signal(self, signum: int) -> None:
        """Sends a signal; a process that is gone is no error."""
        self._process.send_signal(signum)

    def waits_for(self) -> str:
        """Returns "": it starts at once."""
        return ""

    def log_tail(self, lines: int) -> list[str]:
        """Returns the last lines of its output."""
        with self._log_path.open(errors="replace") as log:
            return [line.rstrip("\n") for line in deque(log, maxlen=lines)]

    def read_file(self, path: str) -> str | None:
        """Returns a file on this host; None when there is none."""
        try:
            return Path(path).read_text()
        except FileNotFoundError:
            return None

    def end(self, timeout: float = 5.0) -> None:
        """Kills the process if it still runs, and removes its temporary files."""
        self._process.end(timeout)
        self._temporary.remove()
