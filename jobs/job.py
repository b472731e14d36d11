"""`Job`: launches the processes of a training job, sees it through, and says how it ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..cluster.token import Token, find_token
from ..model.references import is_file, split_reference
from ..protos import status_pb2 as pb
from .folders import keep_tokens, use_folders
from .functions import reference_to
from .keywords import make_options, signature
from .launch.interface import Launcher
from .launch.process import ProcessLauncher
from .launch.restarts import RestartBudget
from .nesting import refuse_nested_job
from .options import JobResult, new_job_id
from .processes import JobProcesses
from .supervisor import JobSupervisor
from .tracebacks import hide_own_frames


class Job:
    """A training job: one chief, parameter servers and workers.

    Example::

        job = Job("examples/census/wide_deep.py:build", logdir="runs/census",
                  num_ps=2, num_workers=2, max_steps=2000)
        result = job.run()
        print(result.eval["accuracy"])

    Args:
        model: The build function, or a reference to it: MODULE:FUNCTION or FILE.py:FUNCTION. Every
            process has to be able to import the function by its file and name.
        **options: Fields of `JobOptions` (`logdir`, `num_ps`, `num_workers`, `sync`, `max_steps`
            and so on) and of `LaunchOptions` (`launcher`, `max_restarts`, `grace_secs` and so on).
            A launcher that is an object is closed by `run`.

    Raises:
        UsageError: A value is out of range, or the model's file or module does not exist.
    """

    def __init__(self, model: str | Callable[..., Any], **options: Any) -> None:
        if not options.get("debug"):
            hide_own_frames()
        reference = model if isinstance(model, str) else reference_to(model)
        self._target, _ = split_reference(reference)
        self.options, self._launch = make_options(reference, options)
        self._restarts = RestartBudget(self._launch.max_restarts, self._launch.restart_window_secs)
        token = find_token(self._launch.security.token_file) or Token.new()
        self.processes = JobProcesses(self.options, self._launch, new_job_id(), token)

    def run(
        self,
        on_status: Callable[[pb.JobStatus], None] | None = None,
        stop: threading.Event | None = None,
    ) -> JobResult:
        """Runs the job to its end; a run with the same `logdir` resumes from its checkpoint.

        Args:
            on_status: Called with the job's status a few times a second; None shows the progress
                on standard error, if that is a terminal.
            stop: Set from outside to end the job with a checkpoint.

        Raises:
            ParamserveError: The job failed; the message says which task and why.
        """
        refuse_nested_job(self._target)
        with (
            use_folders(self.options.logdir, self.processes.log_folder),
            keep_tokens(self.options.logdir, self.processes.log_folder, self.processes.token),
            self._open_launcher() as (launcher, processes),
            nullcontext(on_status) if on_status else _showing_progress() as show,
        ):
            supervisor = JobSupervisor(
                processes, launcher, self._restarts, stop or threading.Event()
            )
            return supervisor.run(show)

    @contextmanager
    def _open_launcher(self) -> Iterator[tuple[Launcher, JobProcesses]]:
        launcher, processes = self._make_launcher()
        try:
            yield launcher, processes
        finally:
            launcher.close()

    def _make_launcher(self) -> tuple[Launcher, JobProcesses]:
        if not isinstance(self._launch.launcher, str):
            return self._launch.launcher, self.processes
        if self._launch.launcher == "process":
            return ProcessLauncher(), self.processes
        from .launch.ray import RayLauncher

        folder = str(Path(self._target).resolve().parent) if is_file(self._target) else None
        launcher = RayLauncher(self._launch.ray_address, folder)
        return launcher, self.processes.of_model(launcher.reference(self.options.model))


@contextmanager
def _showing_progress() -> Iterator[Callable[[pb.JobStatus], None]]:
    from rich.console import Console

    from .progress import ProgressDisplay

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with ProgressDisplay(console, is_command=False) as display:
        yield display.show


Job.__signature__ = signature()  # type: ignore[attr-defined]
