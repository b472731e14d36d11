"""Processes forked from a process that has already loaded TensorFlow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

from .parent import PARENT_VARIABLE, adopt_orphans

_SERVER = "paramserve.jobs.launch.fork_server"
_COMMAND = "paramserve.jobs.launch.command:run_command"
# Modules of the roles; this layer imports none of them.
ROLES = (
    "paramserve.cli.app",
    "paramserve.chief.process",
    "paramserve.cluster.parameter_server",
    "paramserve.worker.process",
)
# Set by Ray: a title would be cut to the length of the server's own.
_SHORT_TITLES = "SPT_NOENV"
_LOAD_SECS = 120.0
_END_SECS = 1.0
_LOOK_SECS = 0.02
# The code of a process that was killed at once: its supervisor tries again.
_NOT_STARTED = -signal.SIGKILL


class ForkServer:
    """Owner of the process that the others are forked from, started with the first of them.

    The started processes are children of this process, and end with it. They survive the loss of
    the fork server.

    Args:
        function: Function of each process, "module:function"; by default a `paramserve` command.
        preload: Modules that are loaded once, before the first process is forked.
        env: Added to the environment in which they are loaded.
    """

    def __init__(
        self,
        function: str = _COMMAND,
        preload: Sequence[str] = ROLES,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._program = json.dumps({"function": function, "preload": list(preload)})
        self._env = dict(env or {})
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: deque[ForkedProcess] = deque()

    @property
    def pid(self) -> int | None:
        """The server's process id; None as long as there is no server."""
        return self._process.pid if self._process else None

    def start(
        self, arguments: Sequence[str], log: str, env: Mapping[str, str], niceness: int = 0
    ) -> ForkedProcess:
        """Asks for a process and returns at once, also while TensorFlow is being loaded.

        Args:
            arguments: Arguments of the function, in order.
            log: File for its output, which is appended.
            env: Its environment.
            niceness: As in `ProcessSpec`.
        """
        order = json.dumps(
            {"arguments": list(arguments), "log": log, "env": dict(env), "niceness": niceness}
        )
        process = ForkedProcess()
        with self._lock:
            server, lines = self._process, [order]
            if server is None or server.poll() is not None:
                server, lines = self._load(log), [self._program, order]
            assert server.stdin is not None
            self._asked.append(process)
            try:
                server.stdin.write("".join(f"{line}\n" for line in lines).encode())
                server.stdin.flush()
            except BrokenPipeError:
                process.failed(_NOT_STARTED)
        return process

    def close(self) -> None:
        """Ends the server, but not the processes that it has started."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(_END_SECS)
        except subprocess.TimeoutExpired:  # It is still loading.
            process.kill()
            process.wait()
        adopt_orphans(self, False)

    def _load(self, log: str) -> subprocess.Popen[bytes]:
        """Starts the server; if it cannot load, the log of the first process has the reason."""
        adopt_orphans(self, True)  # As which the server leaves them.
        self._asked = deque()
        env = {**os.environ, **self._env, PARENT_VARIABLE: str(os.getpid())}
        env.pop(_SHORT_TITLES, None)
        with open(log, "ab") as output:
            server = subprocess.Popen(
                [sys.executable, "-m", _SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=env,
                # Ctrl-C in the terminal is for the command that launches.
                start_new_session=True,
            )
        self._process = server
        threading.Thread(
            target=_hear, args=(server, self._asked), name="fork-server", daemon=True
        ).start()
        return server


class ForkedProcess:
    """A requested process."""

    def __init__(self) -> None:
        self._has_begun = threading.Event()
        self._pid: int | None = None
        self._code: int | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """The process id; waits until there is one.

        Raises:
            ProcessLookupError: It could not be started.
        """
        self._has_begun.wait(_LOAD_SECS)
        if self._pid is None:
            raise ProcessLookupError("the process was not started")
        return self._pid

    def began(self, pid: int) -> None:
        """Records the process id."""
        self._pid = pid
        self._has_begun.set()

    def failed(self, code: int) -> None:
        """Records that there will be no process, and its exit code."""
        self._code = code
        self._has_begun.set()

    def poll(self) -> int | None:
        """Returns the exit code; negative for a signal; None while the process runs."""
        with self._lock:
            if self._code is None and self._pid is not None:
                self._code = _exit_code(self._pid)
            return self._code

    def send_signal(self, signum: int) -> None:
        """Sends a signal; a process that is gone, or will never be, is no error."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def wait(self, max_wait_secs: float) -> int:
        """Waits for its end, and returns the exit code.

        Raises:
            TimeoutError: It has not ended by then.
        """
        deadline = time.monotonic() + max_wait_secs
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self._pid} has not ended within {max_wait_secs:g} s")
            time.sleep(_LOOK_SECS)
        return code

    def end(self, max_wait_secs: float = 5.0) -> None:
        """Kills the process if it still runs.

        Raises:
            TimeoutError: It has not ended by then.
        """
        self.send_signal(signal.SIGKILL)
        self.wait(max_wait_secs)


def _hear(server: subprocess.Popen[bytes], asked: deque[ForkedProcess]) -> None:
    """Gives each process in turn its id.

    Requests that are left when the server ends fail as it did: they could not load either. `deque`
    is safe for one thread at each end.
    """
    assert server.stdout is not None
    with server.stdout as answers:
        for line in answers:
            asked.popleft().began(int(line))
    code = server.wait()
    while asked:
        asked.popleft().failed(code if code > 0 else _NOT_STARTED)


def _exit_code(pid: int) -> int | None:
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return _NOT_STARTED  # Another caller has waited for it, and has the code.
    return os.waitstatus_to_exitcode(status) if ended else None
