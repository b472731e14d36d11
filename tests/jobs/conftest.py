"""Real jobs in tests: commands as people type them, and roles started by hand."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from paramserve.cluster.security import SecurityOptions
from paramserve.cluster.status_client import StatusClient, find_chief
from paramserve.errors import ParamserveError
from support import ports
from support.role_processes import handed_options
from support.waiting import until

MODELS = Path(__file__).parent / "models"
LINEAR = f"{MODELS / 'linear.py'}:build"
CLASSES = f"{MODELS / 'classes.py'}:build"
LAYERS = f"{MODELS / 'layers.py'}:build"
# Far above what anything takes; only so that a hang becomes a failure.
PATIENCE_SECS = 120.0


class Command:
    """A `paramserve` command that runs."""

    program: tuple[str, ...] = ("-m", "paramserve")

    def __init__(self, arguments: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        self._file = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, *self.program, *arguments],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self._temporary(arguments), **(env or {})},
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._family = [psutil.Process(self.pid)]

    def _temporary(self, arguments: list[str]) -> dict[str, str]:
        """A launcher that a test kills cannot tidy up: then pytest does.

        Not for Ray, whose sockets need a short path.
        """
        uses_ray = arguments[0] == "run" and "process" not in arguments
        return {} if uses_ray else {"TMPDIR": str(self.log.parent)}

    @property
    def output(self) -> str:
        return self.log.read_text()

    def running(self) -> bool:
        return self._process.poll() is None

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        """The exit code; the processes it started must be gone with it."""
        self.children()
        code = self._process.wait(PATIENCE_SECS)
        assert self.survivors() == []
        return code

    def children(self) -> dict[str, psutil.Process]:
        """The roles' processes it started, by their name, as "worker-0"."""
        found = {}
        for process in psutil.process_iter(["cmdline", "ppid"]):
            command = process.info["cmdline"] or []
            if "paramserve" in command and process.pid != self.pid and self._is_mine(process):
                role = command[command.index("paramserve") + 1]
                found[f"{role}-{handed_options(command).get('index') or 0}"] = process
                self._family.append(process)
        return found

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            return any(parent.pid == self.pid for parent in process.parents())
        except psutil.NoSuchProcess:
            return False

    def survivors(self) -> list[psutil.Process]:
        """Processes of this command that still live, a moment after it ended."""
        _, alive = psutil.wait_procs(self._family[1:], timeout=5)
        return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def end(self) -> None:
        for process in [*self.children().values(), self._process]:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.kill()
        self._process.wait(10)
        self._file.close()


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    return tmp_path / "job"


@pytest.fixture
def free_port() -> int:
    """A port that was free a moment ago, for processes that must know it before it is bound."""
    return ports.free_port()


@pytest.fixture
def start(tmp_path: Path):
    """Starts a `paramserve` command; what still runs at the end of the test is killed."""
    commands: list[Command] = []

    def start_command(*arguments: object, env: dict[str, str] | None = None) -> Command:
        log = tmp_path / f"command-{len(commands)}.log"
        commands.append(Command([str(a) for a in arguments], log, env))
        return commands[-1]

    yield start_command
    for command in commands:
        command.end()


@pytest.fixture
def start_job(start, logdir: Path):
    """Starts a chief and parameter servers by hand; workers are for the test to add."""

    def start_chief_and_ps(*options: object, ps: int = 1, model: str = LINEAR) -> str:
        port = () if "--port" in options else ("--port", 0)
        start("chief", model, "--logdir", logdir, "--ps", ps, *port, *options)
        address = until(lambda: find_chief_or_none(logdir))
        for _ in range(ps):
            start("ps", "--chief", address)
        return address

    return start_chief_and_ps


def find_chief_or_none(logdir: Path) -> str | None:
    try:
        return find_chief(str(logdir))
    except ParamserveError:
        return None


def status_of(address: str):
    """The status of a running job; None when it does not answer."""
    # Nodes of a Ray cluster have addresses of a network; it is this host alone.
    access = SecurityOptions(insecure=True).access()
    with StatusClient(address, access, timeout_secs=5) as client:
        try:
            return client.status()
        except ParamserveError:
            return None


def step_of(address: str) -> int:
    status = status_of(address)
    return status.global_step if status else 0


def result_of(logdir: Path) -> dict:
    return json.loads((logdir / "result.json").read_text())


def last_error(command: Command) -> str:
    """The message a failed command ends with."""
    lines = command.output.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    assert starts, command.output
    return "\n".join(lines[starts[-1] :])
