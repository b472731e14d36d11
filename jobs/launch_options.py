"""`LaunchOptions`: the launcher of a job's processes, and its settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ..cluster.security import SecurityOptions
from ..cluster.signals import GRACE_SECS
from ..cluster.task_options import (
    DEBUG_OPTION,
    GRACE_OPTION,
    METRICS_PORT_OPTION,
    RECOVERY_PANEL,
    port_option,
)
from ..errors import UsageError
from ..option import Option, check_ranges
from .launch.interface import Launcher
from .launch.restarts import MAX_RESTARTS, WINDOW_SECS
from .options import JobOptions

LAUNCHERS = ("ray", "process")
_PROCESSES = "Launcher of the processes"
TENSORFLOW_PORT_OPTION = port_option("Port of the chief's TensorFlow server; 0: a free one.")


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """The launcher of a job's processes, and its settings.

    Attributes:
        launcher: "ray" or "process", or an object that starts the processes.
        ray_address: Address of a running Ray cluster; "local" starts one for this job alone. None
            takes the program's Ray, or that of `RAY_ADDRESS`, or starts one.
        gpus_per_worker: GPUs of each worker, as Ray counts them.
        port: Port of the chief's control service; 0 takes a free one.
        tensorflow_port: Port of the chief's TensorFlow server; 0 takes a free one.
        metrics_port: Port of the chief's Prometheus metrics; 0 takes a free one.
        max_restarts: Restarts of killed tasks within `restart_window_secs`, of all tasks together.
        restart_window_secs: Seconds after which a restart does not count any more.
        grace_secs: Seconds that a process may stay after SIGTERM, to shut down gracefully.
        spares: Parameter servers that stand by.
        debug: Whether the processes print tracebacks.
        security: The token and TLS of the processes; without a token, a job makes one.

    Raises:
        UsageError: A value is out of range.
    """

    launcher: Annotated[
        str | Launcher,
        Option(help="process: plain ones, on this host.", choices=LAUNCHERS, panel=_PROCESSES),
    ] = "ray"
    ray_address: Annotated[
        str | None,
        Option(
            help="Running Ray cluster, or local for one of this job's own; default: RAY_ADDRESS, "
            "or local.",
            panel=_PROCESSES,
        ),
    ] = None
    gpus_per_worker: Annotated[
        float, Option(help="GPUs of each worker, as Ray counts them.", panel=_PROCESSES)
    ] = 0.0
    port: Annotated[int, port_option("Port of the chief's control service; 0: a free one.")] = 0
    tensorflow_port: Annotated[int, TENSORFLOW_PORT_OPTION] = 0
    metrics_port: Annotated[int, METRICS_PORT_OPTION] = 0
    max_restarts: Annotated[
        int,
        Option(
            help="Restarts of killed tasks within --restart-window-secs, in all.",
            least=0,
        ),
    ] = MAX_RESTARTS
    restart_window_secs: Annotated[
        float,
        Option(
            help="Seconds after which a restart does not count any more.",
            unit="seconds",
            is_positive=True,
        ),
    ] = WINDOW_SECS
    grace_secs: Annotated[float, GRACE_OPTION] = GRACE_SECS
    spares: Annotated[
        int,
        Option(
            help="Parameter servers that stand by, to replace a lost one at once.",
            panel=RECOVERY_PANEL,
            least=0,
        ),
    ] = 0
    debug: Annotated[bool, DEBUG_OPTION] = False
    security: SecurityOptions = field(default_factory=SecurityOptions)

    def __post_init__(self) -> None:
        check_ranges(self)

    def check_with(self, options: JobOptions) -> None:
        """Refuses options that make no sense for a job.

        Raises:
            UsageError: The message names both options and the remedy.
        """
        if self.spares and options.ps_on_workers:
            raise UsageError(
                f"--spares {self.spares} with --ps-on-workers: workers hold the parameters, and "
                "spares of parameter servers have no place to take; leave one of them out"
            )
