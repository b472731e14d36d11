"""`Job`: launches the processes of a training job, sees it through, and says how it ended."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .chief.arguments import chief_arguments
from .chief.options import JobOptions, JobResult, new_job_id
from .cluster.address import parse_address
from .cluster.launch.ahead import StartedAhead
from .cluster.launch.ends import (
    LOG_LINES,
    describe_end,
    describe_exit,
    failed_before_it_joined,
    is_worth_a_restart,
    last_error,
    was_preempted,
)
from .cluster.launch.interface import Launcher, ProcessHandle, ProcessSpec
from .cluster.launch.overdue import Overdue
from .cluster.launch.process import ProcessLauncher
from .cluster.launch.restarts import MAX_RESTARTS, WINDOW_SECS, BudgetSpent, RestartBudget
from .cluster.signals import GRACE_SECS, check_grace
from .cluster.status_client import JOB_FILE, RESULT_FILE, StatusClient, read_job_file
from .errors import ExitCode, JobFailed, ParamserveError, UsageError, WaitTimeout
from .model.loading import split_reference
from .protos import status_pb2 as pb

log = logging.getLogger(__name__)

POLL_SECS = 0.25
START_SECS = 120.0
# How long tasks may take to end by themselves once the chief has.
END_SECS = 20.0
# A disk with less than this takes no line of a log any more, or next to none.
_LEAST_BYTES = 64 * 1024
SPARE = "spare"
# Phases of a job in which its tasks are started, and started again.
_RUNNING = ("waiting", "initializing", "training", "recovering", "scaling")
# Parameters live on CPUs; a GPU there would only be kept from the workers.
_NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}
# Where they share cores, workers stand back for those that all of them wait for.
_WORKER_NICENESS = 5
# What TensorFlow says at every start, whatever TF_CPP_MIN_LOG_LEVEL; it helps nobody find a fault.
_BANNER = re.compile(r"[IWE]0000 |WARNING: All log messages before absl")


class Job:
    """A training job: one chief, parameter servers and workers.

    Example::

        job = Job("examples/census/wide_deep.py:build", logdir="runs/census",
                  num_ps=2, num_workers=2, max_steps=2000)
        result = job.run()
        print(result.eval["accuracy"])

    Args:
        model: The build function, or a reference to it: MODULE:FUNCTION or FILE.py:FUNCTION. A
            function has to be one that every process can import by its file and name.
        launcher: "ray" or "process", or an object that starts the processes; `run` closes it.
        ray_address: Of a running Ray cluster; None starts one for this job alone.
        gpus_per_worker: GPUs of each worker, as Ray counts them.
        metrics_port: Port of the chief's Prometheus metrics; 0 takes a free one.
        port: Port of the chief's control service; 0 takes a free one.
        max_restarts: How many restarts of killed tasks there may be within `restart_window_secs`,
            of all tasks together. Tasks that were preempted do not count.
        restart_window_secs: Seconds after which a restart does not count any more.
        grace_secs: How long a process may stay after SIGTERM, to leave in good order.
        spares: Parameter servers that stand by, with TensorFlow loaded, to take the place of a lost
            one at once.
        debug: Have the processes print tracebacks.
        **options: Fields of `JobOptions`: `logdir`, `num_ps`, `num_workers`, `sync`, `max_steps`
            and so on.

    Raises:
        UsageError: A value is out of range, or the model's file or module does not exist.
    """

    def __init__(
        self,
        model: str | Callable[..., Any],
        *,
        launcher: str | Launcher = "ray",
        ray_address: str | None = None,
        gpus_per_worker: float = 0.0,
        metrics_port: int = 0,
        port: int = 0,
        max_restarts: int = MAX_RESTARTS,
        restart_window_secs: float = WINDOW_SECS,
        grace_secs: float = GRACE_SECS,
        spares: int = 0,
        debug: bool = False,
        **options: Any,
    ) -> None:
        reference = model if isinstance(model, str) else _reference_to(model)
        target, function = split_reference(reference)
        if isinstance(launcher, str) and launcher not in ("ray", "process"):
            raise UsageError(f"--launcher {launcher!r}: expected ray or process")
        self._sent_folder: str | None = None
        if ray_address is not None and Path(target).is_file():
            # The file's folder is sent to the nodes, and is the current one of the processes there.
            self._sent_folder = str(Path(target).resolve().parent)
            reference = f"{Path(target).name}:{function}"
        self.options = JobOptions(model=reference, **options)
        self._launcher = launcher
        self._ray_address = ray_address
        self._gpus_per_worker = gpus_per_worker
        self.spares = _checked_spares(spares, self.options.ps_on_workers)
        self._ports = (port, metrics_port)
        self.restarts = RestartBudget(max_restarts, restart_window_secs)
        check_grace(grace_secs)
        self._grace = ("--grace-secs", f"{grace_secs:g}")
        self._debug = debug
        self._job_id = new_job_id()

    def run(
        self,
        on_status: Callable[[pb.JobStatus], None] = lambda _: None,
        stop: threading.Event | None = None,
    ) -> JobResult:
        """Runs the job to its end; a run with the same `logdir` goes on from its checkpoint.

        Args:
            on_status: Called with the job's status a few times a second.
            stop: Set from outside to end the job with a checkpoint.

        Raises:
            ParamserveError: The job failed; the message says which task and why.
        """
        _prepare_folders(self.options.logdir, self.log_folder)
        launcher = self._open_launcher()
        try:
            return _Run(self, launcher, stop or threading.Event()).run(on_status)
        finally:
            launcher.close()

    def _open_launcher(self) -> Launcher:
        if not isinstance(self._launcher, str):
            return self._launcher
        if self._launcher == "process":
            return ProcessLauncher()
        from .cluster.launch.ray import RayLauncher

        return RayLauncher(self._ray_address, self._sent_folder)

    def _spec(self, role: str, index: int, arguments: tuple[str, ...]) -> ProcessSpec:
        if self._debug:
            arguments += ("--debug",)
        return ProcessSpec(
            name=f"{role}-{index}",
            arguments=arguments,
            log_path=str(self.log_folder / f"{role}-{index}.log"),
            gpus=self._gpus_per_worker if role == "worker" else 0.0,
            env={} if role == "worker" else _NO_GPU,
            # A chief that trains would be ahead of the other workers.
            niceness=_WORKER_NICENESS if role == "worker" and not self.options.chief_trains else 0,
        )

    def chief_spec(self, address: str | None = None) -> ProcessSpec:
        """The chief's process; at the address of an earlier one, if there was one."""
        port, metrics_port = self._ports
        if address is not None:
            port = parse_address(address).port
        arguments = (
            "chief",
            self.options.model,
            *chief_arguments(self.options),
            *("--job-id", self._job_id, "--port", str(port), "--metrics-port", str(metrics_port)),
            *("--supervised", *self._grace),
        )
        return self._spec("chief", 0, arguments)

    def task_spec(
        self, role: str, index: int, chief: str, *, replaces: bool = False
    ) -> ProcessSpec:
        """The process of a parameter server, spare or worker.

        With spares, one that `replaces` a lost parameter server is a spare too: if the place was
        taken already, it is the next to stand by, and else it takes it at once.
        """
        model = (self.options.model,) if role == "worker" else ()
        is_spare = role == SPARE or (role == "ps" and replaces and self.spares > 0)
        place = ("--spare",) if is_spare else ("--index", str(index))
        arguments = (
            "ps" if role == SPARE else role,
            *model,
            *("--chief", chief, *place, "--metrics-port", "0"),
            *("--max-wait-secs", f"{self.options.max_wait_secs:g}", *self._grace),
        )
        return self._spec(role, index, arguments)

    @property
    def log_folder(self) -> Path:
        """Where the processes' output goes: each on its host, also when `logdir` is a URL."""
        if "://" in self.options.logdir:
            return Path(tempfile.gettempdir(), f"paramserve-{self._job_id}")
        return Path(self.options.logdir, "logs").resolve()

    @property
    def job_id(self) -> str:
        """Unique to this job object."""
        return self._job_id


class _Run:
    """One run of a job: its processes, and what became of them."""

    def __init__(self, job: Job, launcher: Launcher, stop: threading.Event) -> None:
        self._job = job
        self._options = job.options
        self._launcher = launcher
        self._stop = stop
        self._chief: ProcessHandle | None = None
        self._tasks: dict[tuple[str, int], ProcessHandle] = {}
        self._wanted = {"worker": job.options.num_workers, "ps": job.options.num_ps}
        self._stop_sent = False
        self._spent: BudgetSpent | None = None
        self._overdue = Overdue(END_SECS)

    def run(self, on_status: Callable[[pb.JobStatus], None]) -> JobResult:
        self._chief = self._launcher.start(self._job.chief_spec())
        address = self._await_chief()
        if address is not None:
            for role, count in (
                ("ps", 0 if self._options.ps_on_workers else self._options.num_ps),
                (SPARE, self._job.spares),
                ("worker", self._options.num_workers),
            ):
                for index in range(count):
                    self._start(role, index, address)
            with StatusClient(address, timeout_secs=2.0) as client:
                self._watch(client, on_status)
        code = self._chief.poll()
        if code != 0:
            raise self._failure(self._chief, code)
        self._await_tasks()
        return self._result()

    def _start(self, role: str, index: int, chief: str) -> None:
        spec = self._job.task_spec(role, index, chief)
        self._tasks[role, index] = self._launcher.start(spec)

    def _await_chief(self) -> str | None:
        """The chief's address once it serves; None when it ended before."""
        assert self._chief is not None
        deadline = time.monotonic() + START_SECS
        while time.monotonic() < deadline:
            content = self._read(JOB_FILE)
            job = json.loads(content) if content else {}
            if job.get("job_id") == self._job.job_id:
                return str(job["address"])
            if self._stop.is_set():
                raise JobFailed("stopped before the chief was up; nothing was trained")
            if self._chief.poll() is not None and not self._is_chief_back():
                return None
            time.sleep(0.1)
        raise WaitTimeout(
            f"the chief did not come up within {START_SECS:g} s:\n{self._tail(self._chief)}"
        )

    def _watch(self, client: StatusClient, on_status: Callable[[pb.JobStatus], None]) -> None:
        """Returns when the chief has ended."""
        assert self._chief is not None
        ahead = StartedAhead(lambda number: self._start_spare(number, client.address))
        while self._chief.poll() is None or self._is_chief_back(client.address):
            if self._stop.is_set() and not self._stop_sent:
                self._stop_sent = True
                self._ask_to_stop(client)
            try:
                status = client.status()
                on_status(status)
                if status.phase in _RUNNING:
                    self._start_what_is_wanted(client.address, status)
                    if not self._options.ps_on_workers:
                        ahead.look(status)
                    self._look_after_tasks(client, status, ahead)
            except JobFailed:
                pass  # The chief is busy, or ended between two looks.
            time.sleep(POLL_SECS)

    def _start_spare(self, number: int, address: str) -> ProcessHandle:
        """One more than those that were asked for."""
        return self._launcher.start(self._job.task_spec(SPARE, self._job.spares + number, address))

    def _is_chief_back(self, address: str | None = None) -> bool:
        """Whether there is a chief again, or will be: where the others look, if they do yet."""
        assert self._chief is not None
        code = self._chief.poll()
        if code is None or (code >= 0 and not was_preempted(code)) or self._stop.is_set():
            return False
        try:
            if self._is_restart_due(self._chief, code):
                self._chief = self._launcher.start(self._job.chief_spec(address))
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

    def _look_after_tasks(
        self, client: StatusClient, status: pb.JobStatus, ahead: StartedAhead
    ) -> None:
        """Starts again what was killed; what failed by itself has told the chief why."""
        states = {(task.role, task.index): task.state for task in status.tasks}
        for task, handle in self._tasks.items():
            code, state = handle.poll(), states.get(task, "")
            if code is None:
                self._end_if_overdue(task, handle, state)
                continue
            if failed_before_it_joined(task[0], code, state):
                said = describe_end(handle, code)
                self._ask_to_stop(client, f"{handle.name} failed before it joined: {said}")
                return
            if task[0] != "worker" and (follower := ahead.take()) is not None:
                self._tasks[task] = follower
                continue
            if not is_worth_a_restart(task[0], code, state):
                continue
            try:
                if self._is_restart_due(handle, code):
                    # A place that nobody has held yet is not filled by a spare.
                    spec = self._job.task_spec(*task, client.address, replaces=bool(state))
                    self._tasks[task] = self._launcher.start(spec)
            except BudgetSpent as spent:
                said = describe_end(handle, code)
                self._ask_to_stop(client, f"{handle.name}: {said}; {spent}")
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
        is_due = self._job.restarts.is_due(handle.name, is_free=is_free)
        if is_due:
            how = "preempted" if is_free else describe_exit(code)
            log.warning("%s: %s; starting it again", handle.name, how)
        return is_due

    def _ask_to_stop(self, client: StatusClient, error: str = "") -> None:
        try:
            client.stop(error)
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
            why += _describe_full_disk(self._job.log_folder)
            return JobFailed(f"{handle.name}: {why}\n{self._tail(handle)}")
        kinds = {ExitCode.USAGE: UsageError, ExitCode.TIMED_OUT: WaitTimeout}
        kind = kinds.get(ExitCode(code) if code in set(ExitCode) else ExitCode.FAILED, JobFailed)
        failed = message.partition(" ")[0].rstrip(":").replace(":", "-")
        culprit = next((h for h in self._tasks.values() if h.name == failed), None)
        return kind(f"{message}\n{self._tail(culprit)}" if culprit else message)

    def _tail(self, handle: ProcessHandle) -> str:
        path = self._job.log_folder / f"{handle.name}.log"
        lines = [line for line in handle.log_tail(LOG_LINES) if not _BANNER.match(line)]
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
        assert self._chief is not None
        logdir = self._options.logdir
        if "://" in logdir:
            return read_job_file(logdir, name)
        return self._chief.read_file(str(Path(logdir, name).resolve()))


def _describe_full_disk(folder: Path) -> str:
    """Why a process had no last words: they go to a disk, too."""
    try:
        is_full = shutil.disk_usage(folder).free < _LEAST_BYTES
    except OSError:
        return ""
    return f"; No space left on the device of {folder}: free some" if is_full else ""


def _checked_spares(spares: int, ps_on_workers: bool) -> int:
    if spares < 0:
        raise UsageError(f"--spares {spares}: expected at least 0")
    if spares and ps_on_workers:
        raise UsageError(
            f"--spares {spares} with --ps-on-workers: workers hold the parameters, and spares of "
            "parameter servers have no place to take; leave one of them out"
        )
    return spares


def _reference_to(build: Callable[..., Any]) -> str:
    source = inspect.getsourcefile(build)
    if source is None or "<" in build.__qualname__ or "." in build.__qualname__:
        raise UsageError(
            f"{build!r} cannot be imported by other processes: give a function at the top level of "
            "a file, or a reference MODULE:FUNCTION"
        )
    return f"{source}:{build.__name__}"


def _prepare_folders(logdir: str, logs: Path) -> None:
    """Refuses at once what the chief would refuse later; a URL is for the chief to try."""
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--logdir {logdir!r} is not writable: {error.strerror}") from error
    if not os.access(logs.parent, os.W_OK) or not os.access(logs, os.W_OK):
        raise UsageError(f"--logdir {logdir!r} is not writable")
