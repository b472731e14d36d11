"""One run of a job: what is started, what is started again, and how it ended."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..cluster.startup_noise import is_noise
from ..cluster.status_client import JOB_FILE, RESULT_FILE, StatusClient, read_job_file
from ..errors import ExitCode, JobFailed, ParamserveError, UsageError, WaitTimeout
from ..protos import status_pb2 as pb
from .last_word import leave_result
from .launch.ahead import StartedAhead
from .launch.ends import (
    LOG_LINES,
    describe_end,
    describe_exit,
    failed_before_it_joined,
    is_worth_a_restart,
    last_error,
    was_preempted,
)
from .launch.interface import Launcher, ProcessHandle
from .launch.overdue import Overdue
from .launch.restarts import BudgetSpent, RestartBudget
from .lives import Lives
from .options import JobResult
from .processes import SPARE, JobProcesses

log = logging.getLogger(__name__)

POLL_SECS = 0.25
START_SECS = 120.0
_ASK_SECS = 2.0
# How long tasks may take to end by themselves once the chief has.
END_SECS = 20.0
# A disk with less than this takes no line of a log any more, or next to none.
_LEAST_BYTES = 64 * 1024
# Phases of a job in which its tasks are started, and started again.
_RUNNING = ("waiting", "initializing", "training", "recovering", "scaling")


class JobSupervisor:
    """Sees one run of a job through: its processes, and what became of them.

    Args:
        processes: Says what to start.
        launcher: Starts it.
        restarts: How often what was killed is started again.
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
        self._restarts = restarts
        self._lives = Lives(launcher)
        self._stop = stop
        self._chief: ProcessHandle | None = None
        self._tasks: dict[tuple[str, int], ProcessHandle] = {}
        self._wanted = {"worker": self._options.num_workers, "ps": self._options.num_ps}
        self._stop_sent = False
        self._spent: BudgetSpent | None = None
        self._overdue = Overdue(END_SECS)

    def run(self, on_status: Callable[[pb.JobStatus], None]) -> JobResult:
        """Starts everything, looks after it, and says how the job ended.

        Args:
            on_status: Called with the job's status a few times a second; at first, while there is
                no chief yet, with the phase "starting".

        Raises:
            ParamserveError: The job failed; the message says which task and why.
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
            for role, count in self._processes.counts.items():
                for index in range(count if role != "chief" else 0):
                    self._start(role, index, address)
            self._client = StatusClient(address, timeout_secs=_ASK_SECS)
            try:
                self._watch(on_status)
            finally:
                self._client.close()
        code = self._chief.poll()
        if code != 0:
            raise self._failure(self._chief, code)
        self._await_tasks()
        return self._result()

    def _start(self, role: str, index: int, chief: str) -> None:
        spec = self._processes.task(role, index, chief)
        self._tasks[role, index] = self._lives.start(spec, chief)

    def _read_address(self) -> str | None:
        """Where the chief says that it serves; None while it does not."""
        content = self._read(JOB_FILE)
        job = json.loads(content) if content else {}
        return str(job["address"]) if job.get("job_id") == self._processes.job_id else None

    def _await_chief(self) -> str | None:
        """The chief's address once it serves; None when it ended before."""
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
        raise WaitTimeout(
            f"the chief did not come up within {START_SECS:g} s:\n{self._tail(self._chief)}"
        )

    def _watch(self, on_status: Callable[[pb.JobStatus], None]) -> None:
        """Returns when the chief has ended."""
        assert self._chief is not None
        ahead = StartedAhead(lambda number: self._start_spare(number, self._client.address))
        while self._chief.poll() is None or self._is_chief_back(self._client.address):
            if self._stop.is_set() and not self._stop_sent:
                self._stop_sent = True
                self._ask_to_stop()
            try:
                status = self._client.status()
                on_status(status)
                if ended := self._lives.find_ended(status):
                    self._client.report_ended(ended)
                for stranded in self._lives.take_stranded(status, self._client.address):
                    log.warning("%s looks for a chief that has moved", stranded.name)
                    stranded.send_signal(signal.SIGTERM)  # It leaves, and starts again for free.
                if status.phase in _RUNNING:
                    self._start_what_is_wanted(self._client.address, status)
                    if not self._options.ps_on_workers:
                        ahead.look(status)
                    self._look_after_tasks(status, ahead)
            except JobFailed:
                self._follow_chief()  # Or it is busy, or ended between two looks.
            time.sleep(POLL_SECS)

    def _follow_chief(self) -> None:
        """A chief that was started again may be on another host."""
        address = self._read_address()
        if address is not None and address != self._client.address:
            self._client.close()
            self._client = StatusClient(address, timeout_secs=_ASK_SECS)

    def _start_spare(self, number: int, address: str) -> ProcessHandle:
        """One more than those that were asked for."""
        return self._lives.start(
            self._processes.task(SPARE, self._processes.spares + number, address), address
        )

    def _is_chief_back(self, address: str | None = None) -> bool:
        """Whether there is a chief again, or will be: where the others look, if they do yet."""
        assert self._chief is not None
        code = self._chief.poll()
        if code is None or (code >= 0 and not was_preempted(code)) or self._stop.is_set():
            return False
        try:
            if self._is_restart_due(self._chief, code):
                self._chief = self._lives.start(self._processes.chief(address))
        except BudgetSpent as spent:
            self._spent = spent
            return False
        return True

    def _start_what_is_wanted(self, chief: str, status: pb.JobStatus) -> None:
        """Starts tasks for a job that was told to grow; where it shrinks, the chief dismisses."""
        for index in range(self._wanted["worker"], status.wanted_workers):
            self._start("worker", index, chief)
        for _ in range(self._wanted["ps"], status.wanted_ps):
            # It stands by until the model is made ready for it.
            self._start(SPARE, sum(role == SPARE for role, _ in self._tasks), chief)
        self._wanted = {"worker": status.wanted_workers, "ps": status.wanted_ps}

    def _look_after_tasks(self, status: pb.JobStatus, ahead: StartedAhead) -> None:
        """Starts again what was killed; what failed by itself has told the chief why."""
        states = {(task.role, task.index): task.state for task in status.tasks}
        for task, handle in self._tasks.items():
            code, state = handle.poll(), states.get(task, "")
            if code is None:
                self._end_if_overdue(task, handle, state)
                continue
            if failed_before_it_joined(task[0], code, state):
                said = describe_end(handle, code)
                self._ask_to_stop(f"{handle.name} failed before it joined: {said}")
                return
            if task[0] != "worker" and (follower := ahead.take()) is not None:
                self._tasks[task] = follower
                continue
            if not is_worth_a_restart(task[0], code, state):
                continue
            try:
                if self._is_restart_due(handle, code):
                    # A place that nobody has held yet is not filled by a spare.
                    address = self._client.address
                    spec = self._processes.task(*task, address, replaces=bool(state))
                    self._tasks[task] = self._lives.start(spec, address)
            except BudgetSpent as spent:
                said = describe_end(handle, code)
                self._ask_to_stop(f"{handle.name}: {said}; {spent}")
                return

    def _end_if_overdue(self, task: tuple[str, int], handle: ProcessHandle, state: str) -> None:
        if self._options.ps_on_workers:
            return  # It may hold parameters still.
        if self._overdue.is_to_be_killed(task, handle, state):
            log.warning("%s is lost to the chief, and does not end: it is killed", handle.name)
            handle.send_signal(signal.SIGKILL)

    def _is_restart_due(self, handle: ProcessHandle, code: int) -> bool:
        """Whether a process that ended is to be started again now.

        Raises:
            BudgetSpent: It is not to be started again.
        """
        is_free = was_preempted(code)
        is_due = self._restarts.is_due(handle.name, is_free=is_free)
        if is_due:
            how = "preempted" if is_free else describe_exit(code)
            log.warning("%s: %s; starting it again", handle.name, how)
        return is_due

    def _ask_to_stop(self, error: str = "") -> None:
        try:
            self._client.stop(error)
        except JobFailed as failure:
            log.warning("%s", failure)

    def _await_tasks(self) -> None:
        deadline = time.monotonic() + END_SECS
        for handle in self._tasks.values():
            while handle.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            code = handle.poll()
            if code is None:
                log.warning("%s did not end within %g s and is killed", handle.name, END_SECS)
            elif code != 0:
                log.warning("%s ended with %s", handle.name, describe_exit(code))

    def _failure(self, handle: ProcessHandle, code: int | None) -> ParamserveError:
        """What the chief said last, and the end of the log of the task that failed."""
        message = last_error(handle)
        if message is None:
            how = describe_exit(code) if code is not None else "lost"
            why = f"{how}; {self._spent}" if self._spent else how
            why += _describe_full_disk(self._processes.log_folder)
            return JobFailed(f"{handle.name}: {why}\n{self._tail(handle)}")
        kinds = {ExitCode.USAGE: UsageError, ExitCode.TIMED_OUT: WaitTimeout}
        kind = kinds.get(ExitCode(code) if code in set(ExitCode) else ExitCode.FAILED, JobFailed)
        failed = message.partition(" ")[0].rstrip(":").replace(":", "-")
        culprit = next((h for h in self._tasks.values() if h.name == failed), None)
        if culprit is None and kind is JobFailed:
            culprit = handle
        if kind is WaitTimeout:  # The chief cannot know why a task never started.
            unplaced = filter(None, (each.waits_for() for each in self._tasks.values()))
            message = "; ".join([*unplaced, message])
        return kind(f"{message}\n{self._read_on(culprit)}" if culprit else message)

    def _read_on(self, handle: ProcessHandle) -> str:
        """Where the whole error is; the end of the log if the process did not say why it ended."""
        if last_error(handle) is None:
            return self._tail(handle)
        return f"the whole error is in {self._log_path(handle)}"

    def _log_path(self, handle: ProcessHandle) -> Path:
        return self._processes.log_folder / f"{handle.name}.log"

    def _tail(self, handle: ProcessHandle) -> str:
        path = self._log_path(handle)
        lines = handle.log_tail(LOG_LINES)
        if not self._processes.gpus_per_worker:
            lines = [line for line in lines if not is_noise(line)]
        return "\n".join([f"the end of {path}:", *(f"  {line}" for line in lines)])

    def _result(self) -> JobResult:
        content = self._read(RESULT_FILE)
        if content is None:
            raise JobFailed(
                f"the chief ended well but left no {RESULT_FILE} in {self._options.logdir}"
            )
        return JobResult.from_dict(json.loads(content))

    def _read(self, name: str) -> str | None:
        """A file that the chief has written; a path is one of the host where it runs."""
        logdir = self._options.logdir
        if self._chief is None or "://" in logdir:
            return read_job_file(logdir, name)
        return self._chief.read_file(str(Path(logdir, name).resolve()))


def _describe_full_disk(folder: Path) -> str:
    """Why a process had no last words: they go to a disk, too."""
    try:
        is_full = shutil.disk_usage(folder).free < _LEAST_BYTES
    except OSError:
        return ""
    return f"; No space left on the device of {folder}: free some" if is_full else ""
