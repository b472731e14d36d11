"""`MeasuredChief`: a real chief with a real parameter server and a spare, each a process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from ...cluster.access import Access
from ...cluster.chief_client import new_incarnation
from ...cluster.status_client import StatusClient, find_chief
from ...cluster.token import TOKEN_VARIABLE, Token
from ...errors import JobFailed, ParamserveError, WaitTimeout
from ...protos import status_pb2 as pb

MODEL = Path(__file__).parents[1] / "start_model.py"
_LOOK_SECS = 0.1
_END_SECS = 10.0
# No step is made: the watch of stalls works, and finds nothing for so long.
_STALL_SECS = 36_000


class MeasuredChief:
    """A chief that trains; a context manager, which ends it with its parameter servers.

    Args:
        heartbeat_secs: Seconds between two heartbeats of a task.
        lease_secs: Seconds after which a silent task is lost.
        max_wait_secs: Bound of each wait.

    Attributes:
        address: Of its control service.
        token: Of the job.
    """

    def __init__(self, heartbeat_secs: float, lease_secs: float, max_wait_secs: float) -> None:
        self._max_wait_secs = max_wait_secs
        self._folder = tempfile.TemporaryDirectory(prefix="paramserve-control-")
        self._children: list[psutil.Popen] = []
        self._incarnations = [new_incarnation(), new_incarnation()]
        logdir = Path(self._folder.name, "job")
        self.token = Token.new()
        options = [
            "--host",
            "127.0.0.1",
            "--logdir",
            str(logdir),
            "--async",
            "--ps",
            "1",
            "--port",
            "0",
        ]
        options += ["--heartbeat-secs", str(heartbeat_secs), "--lease-secs", str(lease_secs)]
        options += ["--stall-secs", str(_STALL_SECS), "--save-checkpoint-secs", "0"]
        options += ["--param", "variables=10", "--param", f"note={logdir}.note"]
        self._options = options
        self._logdir = logdir

    def __enter__(self) -> Self:
        try:
            self._start_all()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()
        self._end()

    def _start_all(self) -> None:
        self._process = self._start("chief", f"{MODEL}:build", *self._options)
        self.address = self._find_address(self._logdir)
        self._client = StatusClient(self.address, Access(self.token), self._max_wait_secs)
        for spare, incarnation in zip(((), ("--spare",)), self._incarnations, strict=True):
            self._start(
                "ps",
                "--host",
                "127.0.0.1",
                "--chief",
                self.address,
                "--incarnation",
                incarnation,
                *spare,
            )
            self._await_task(incarnation)

    def _end(self) -> None:
        for child in reversed(self._children):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        for child in self._children:
            child.wait(_END_SECS)
        self._folder.cleanup()

    def cpu_secs(self) -> float:
        """Returns the processor seconds that the chief has used so far."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def memory_bytes(self) -> int:
        """Returns the memory of the chief's process."""
        return int(self._process.memory_info().rss)

    def status(self) -> pb.JobStatus:
        """Returns the status of the job."""
        return self._client.status(all_tasks=False)

    def lose_server(self) -> tuple[int, float]:
        """Ends the parameter server, so that the spare takes its place.

        Returns:
            The generation that is over with it, and when the chief was told so.
        """
        generation = self.status().generation
        server = self._children[1]
        server.kill()
        server.wait(_END_SECS)
        told = time.monotonic()
        self._client.report_ended([self._incarnations[0]])
        return generation, told

    def _start(self, *command: str) -> psutil.Popen:
        name = f"{command[0]}-{len(self._children)}.log"
        with Path(self._folder.name, name).open("wb") as log:
            child = psutil.Popen(
                [sys.executable, "-m", "paramserve", *command, "--host", "127.0.0.1"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, TOKEN_VARIABLE: self.token.text},
            )
        self._children.append(child)
        return child

    def _find_address(self, logdir: Path) -> str:
        deadline = time.monotonic() + self._max_wait_secs
        while time.monotonic() < deadline:
            self._check()
            with contextlib.suppress(ParamserveError):
                return find_chief(str(logdir))
            time.sleep(_LOOK_SECS)
        raise WaitTimeout(f"the chief did not start within {self._max_wait_secs:g} s")

    def _await_task(self, incarnation: str) -> None:
        deadline = time.monotonic() + self._max_wait_secs
        while time.monotonic() < deadline:
            self._check()
            if any(task.incarnation == incarnation for task in self.status().tasks):
                return
            time.sleep(_LOOK_SECS)
        raise WaitTimeout(f"no parameter server came within {self._max_wait_secs:g} s")

    def _check(self) -> None:
        for child in self._children:
            if child.poll() is not None:
                logs = sorted(Path(self._folder.name).glob("*.log"))
                tail = "\n".join(log.read_text()[-2000:] for log in logs)
                raise JobFailed(f"{' '.join(child.args)} ended by itself:\n{tail}")
