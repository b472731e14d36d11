"""`Job`: launches the processes of a training job, sees it through, and says how it ended."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..cluster.signals import GRACE_SECS, check_grace
from ..errors import UsageError
from ..model.references import is_file, split_reference
from ..protos import status_pb2 as pb
from .folders import use_folders
from .functions import reference_to
from .keywords import check_type, make_options
from .launch.interface import Launcher
from .launch.process import ProcessLauncher
from .launch.restarts import MAX_RESTARTS, WINDOW_SECS, RestartBudget
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
        model: The build function, or a reference to it: MODULE:FUNCTION or FILE.py:FUNCTION. A
            function has to be one that every process can import by its file and name.
        launcher: "ray" or "process", or an object that starts the processes; `run` closes it.
        ray_address: Of a running Ray cluster; "local" starts one for this job alone. None takes
            the Ray that the program has initialized, which lives on; or that of `RAY_ADDRESS`; or
            starts one.
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
        if not debug:
            hide_own_frames()
        reference = model if isinstance(model, str) else reference_to(model)
        self._target, _ = split_reference(reference)
        if isinstance(launcher, str) and launcher not in ("ray", "process"):
            raise UsageError(f"--launcher {launcher!r}: expected ray or process")
        self.options = make_options(reference, options, _KEYWORDS)
        self._launcher = launcher
        self._ray_address = ray_address
        self._restarts = RestartBudget(
            check_type("max_restarts", max_restarts, "int"),
            check_type("restart_window_secs", restart_window_secs, "float"),
        )
        check_grace(check_type("grace_secs", grace_secs, "float"))
        self.processes = JobProcesses(
            self.options,
            new_job_id(),
            _checked_spares(check_type("spares", spares, "int"), self.options.ps_on_workers),
            check_type("port", port, "int"),
            check_type("metrics_port", metrics_port, "int"),
            check_type("gpus_per_worker", gpus_per_worker, "float"),
            grace_secs,
            debug,
        )

    def run(
        self,
        on_status: Callable[[pb.JobStatus], None] | None = None,
        stop: threading.Event | None = None,
    ) -> JobResult:
        """Runs the job to its end; a run with the same `logdir` goes on from its checkpoint.

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
        if not isinstance(self._launcher, str):
            return self._launcher, self.processes
        if self._launcher == "process":
            return ProcessLauncher(), self.processes
        from .launch.ray import RayLauncher

        folder = str(Path(self._target).resolve().parent) if is_file(self._target) else None
        launcher = RayLauncher(self._ray_address, folder)
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


def _checked_spares(spares: int, ps_on_workers: bool) -> int:
    if spares < 0:
        raise UsageError(f"--spares {spares}: expected at least 0")
    if spares and ps_on_workers:
        raise UsageError(
            f"--spares {spares} with --ps-on-workers: workers hold the parameters, and spares of "
            "parameter servers have no place to take; leave one of them out"
        )
    return spares


_KEYWORDS = tuple(inspect.signature(Job).parameters)[1:-1]
