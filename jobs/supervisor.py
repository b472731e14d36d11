"""One run of a job: its processes, their restarts, and its end."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..cluster.status_client import JOB_FILE, RESULT_FILE, StatusClient, read_job_file
from ..errors import JobFailed, ParamserveError, WaitTimeout
from ..protos import status_pb2 as pb
from .last_word import leave_result
from .launch.ends import was_preempted
from .launch.interface import Launcher, ProcessHandle
from .launch.restarts import BudgetSpent, RestartBudget
from .lives import Lives
from .options import JobResult
from .post_mortem import PostMortem
from .processes import JobProcesses
from .supervised_tasks import SupervisedTasks

log = logging.getLogger(__name__)

POLL_SECS = 0.25
START_SECS = 120.0
_ASK_SECS = 2.0
# Phases of a job in which its tasks are started and restarted.
_RUNNING = ("waiting", "initializing", "training", "recovering", "scaling")


class JobSupervisor:
    """One run of a job: its chief, its tasks, and its end.

    Args:
        processes: Makes their specifications.
        launcher: Starts them.
        restarts: The limits of restarts.
        stop: Set from outside to end the job with a checkpoint.
    """

    def __init__(
        self,
        processes: JobProcesses,
        launcher: Launcher,
        restarts: RestartBudget,
        stop: threading.Event,
    ) -> None:
        self._processes = processes
        self._options = processes.options
        self._access = processes.access()
        self._restarts = restarts
        self._lives = Lives(launcher)
        self._stop = stop
        self._tasks = SupervisedTasks(processes, self._lives, restarts)
        self._post_mortem = PostMortem(processes)
        self._chief: ProcessHandle | None = None
        self._stop_sent = False
        self._spent: BudgetSpent | None = None

    def run(self, on_status: Callable[[pb.JobStatus], None]) -> JobResult:
        """Starts all processes, supervises them, and returns the result of the job.

        Args:
            on_status: Called with the job's status a few times a second; at first, while there is
                no chief yet, with the phase "starting".

        Raises:
            ParamserveError: The job failed; the message names the task and the reason.
        """
        try:
            return self._run(on_status)
        except ParamserveError as error:
            leave_result(self._options, self._processes.job_id, self._read, str(error))
            raise

    def _run(self, on_status: Callable[[pb.JobStatus], None]) -> JobResult:
        self._chief = self._lives.start(self._processes.chief())
        on_status(
            pb.JobStatus(
                phase="starting",
                detail=f"{sum(self._processes.counts.values())} processes",
                logdir=self._options.logdir,
            )
        )
        address = self._await_chief()
        if address is not None:
            self._tasks.start(address)
            self._client = StatusClient(address, self._access, _ASK_SECS)
            try:
                self._watch(on_status)
            finally:
                self._client.close()
        code = self._chief.poll()
        if code != 0:
            raise self._post_mortem.explain(self._chief, code, self._tasks.handles, self._spent)
        self._tasks.await_end()
        return self._result()

    def _read_address(self) -> str | None:
        """Returns the chief's published address; None while there is none."""
        content = self._read(JOB_FILE)
        job = json.loads(content) if content else {}
        return str(job["address"]) if job.get("job_id") == self._processes.job_id else None

    def _await_chief(self) -> str | None:
        """Returns the chief's address once it serves; None when it ended before."""
        assert self._chief is not None
        deadline = time.monotonic() + START_SECS
        while time.monotonic() < deadline:
            if (address := self._read_address()) is not None:
                return address
            if self._stop.is_set():
                raise JobFailed("stopped before the chief was up; nothing was trained")
            if self._chief.poll() is not None and not self._is_chief_back():
                return None
            time.sleep(0.1)
        said = self._post_mortem.tail(self._chief)
        raise WaitTimeout(f"the chief did not come up within {START_SECS:g} s:\n{said}")

    def _watch(self, on_status: Callable[[pb.JobStatus], None]) -> None:
        """Returns when the chief has ended."""
        assert self._chief is not None
        while self._chief.poll() is None or self._is_chief_back(self._client.address):
            if self._stop.is_set() and not self._stop_sent:
                self._stop_sent = True
                self._ask_to_stop()
            try:
                self._look(on_status)
            except JobFailed:
                self._follow_chief()  # Or it is busy, or ended between two looks.
            time.sleep(POLL_SECS)

    def _look(self, on_status: Callable[[pb.JobStatus], None]) -> None:
        """Compares the chief's status with the running processes.

        Raises:
            JobFailed: The chief does not answer.
        """
        status = self._client.status()
        on_status(status)
        if ended := self._lives.find_ended(status):
            self._client.report_ended(ended)
        for stranded in self._lives.take_stranded(status, self._client.address):
            log.warning("%s looks for a chief that has moved", stranded.name)
            stranded.send_signal(signal.SIGTERM)  # It leaves, and starts again for free.
        if status.phase in _RUNNING and (
            reason := self._tasks.look_after(status, self._client.address)
        ):
            self._ask_to_stop(reason)

    def _follow_chief(self) -> None:
        """Follows the chief, which may be on another host after a restart."""
        address = self._read_address()
        if address is not None and address != self._client.address:
            self._client.close()
            self._client = StatusClient(address, self._access, _ASK_SECS)

    def _is_chief_back(self, address: str | None = None) -> bool:
        """Returns whether a chief is back, or will be, at the address of the tasks."""
        assert self._chief is not None
        code = self._chief.poll()
        if code is None or (code >= 0 and not was_preempted(code)) or self._stop.is_set():
            return False
        try:
            if self._restarts.is_due_after(self._chief.name, code):
                self._chief = self._lives.start(self._processes.chief(address))
        except BudgetSpent as spent:
            self._spent = spent
            return False
        return True

    def _ask_to_stop(self, error: str = "") -> None:
        try:
            self._client.stop(error)
        except JobFailed as failure:
            log.warning("%s", failure)

    def _result(self) -> JobResult:
        content = self._read(RESULT_FILE)
        if content is None:
            raise JobFailed(
                f"the chief ended well but left no {RESULT_FILE} in {self._options.logdir}"
            )
        return JobResult.from_dict(json.loads(content))

    def _read(self, name: str) -> str | None:
        """Returns a file that the chief has written; a path is one of the host where it runs."""
        logdir = self._options.logdir
        if self._chief is None or "://" in logdir:
            return read_job_file(logdir, name)
        return self._chief.read_file(str(Path(logdir, name).resolve()))
