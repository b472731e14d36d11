"""`JobOptions`: the options of one training job, checked once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from ..cluster.task_options import MAX_WAIT_OPTION, MAX_WAIT_SECS, RECOVERY_PANEL
from ..data_plane.options import DataPlane, check_combination, lagging
from ..errors import UsageError
from ..model.job_options import JobDefaults, ModelOptions
from ..option import Option, check_ranges

# Of replicas to aggregate.
ALL = "all"
RECOVERIES = ("rollback", "partial")
# The default of `stall_secs`: at least so many seconds, and so many leases.
STALL_SECS = 60.0
STALL_LEASES = 3


@dataclass(frozen=True, kw_only=True)
class JobOptions(ModelOptions, JobDefaults):
    """The options of one training job.

    Attributes:
        model: Reference to the build function, as MODULE:FUNCTION or FILE.py:FUNCTION.
        logdir: Directory of checkpoints, events and the job's own files.
        num_ps: Parameter servers, at least 1; None: 1, or with `ps_on_workers` the number of
            workers.
        num_workers: Workers that the job waits for and plans with, at least 1.
        sync: Aggregate the gradients of the workers into common steps.
        replicas_to_aggregate: Gradients per global step in sync mode; None: as many as planned
            workers, whichever workers compute them. With fewer, the other workers are backup
            workers. "all": one of each worker that is there, so a step takes fewer while one is
            gone.
        max_steps: Global step at which training ends; None: when the input ends.
        ps_on_workers: True if the planned workers host the parameters themselves, a part each,
            in place of parameter servers in processes of their own.
        chief_trains: True if the chief's process runs a worker as well; it hosts no parameters.
        save_checkpoint_secs: Seconds between two checkpoints; None: none by time.
        save_checkpoint_steps: Global steps between two checkpoints; None: none by steps.
        keep_checkpoints: Newest checkpoints to keep; 0 keeps all.
        save_summaries_steps: Global steps between two summaries; 0: none.
        max_wait_secs: Seconds of each wait, after which the job fails.
        heartbeat_secs: Seconds between two heartbeats of a task.
        lease_secs: Seconds of silence after which a task counts as lost.
        mirror_secs: Seconds of steps that the loss of a parameter server may cost. Restore points
            are taken in memory that often, and a server's variables copied to its neighbour. None:
            after a loss the job returns to a checkpoint.
        recovery: When a parameter server is lost, "rollback": all return to one restore point; or
            "partial" (async): only the new one does.
        stall_secs: Seconds without a step after which the job, or a worker, is reported to hang;
            after twice as long it is acted on. None: 60 or three leases, whichever is more; 0:
            never.
        max_bad_records: Records of an input in shards that may be left out because they cannot be
            read or trained on; one more ends the job as failed.
        evaluate: True to evaluate the final checkpoint, if the model has an `evaluate` function.
        data_plane: How parameters are stored and cross between tasks.
        params: The build function's `task.params`.

    Raises:
        UsageError: A value is out of range; the message names it.
    """

    logdir: Annotated[str, Option(help="Checkpoints, events and the job's own files.")]
    num_ps: Annotated[int, Option(flag="--ps", help="Parameter servers; default: 1.", least=1)] = (
        None  # type: ignore[assignment]  # Replaced by a number at once.
    )
    num_workers: Annotated[int, Option(flag="--workers", help="Workers.")] = 1
    sync: Annotated[
        bool,
        Option(flag="--sync/--async", help="Aggregate the workers' gradients into common steps."),
    ] = True
    replicas_to_aggregate: Annotated[
        int | str | None,
        Option(
            metavar="N|all",
            help="Sync: gradients per global step; default: as many as planned workers. With fewer "
            "the others are backup workers; all: one of each live worker.",
            least=1,
        ),
    ] = None
    max_steps: Annotated[
        int | None,
        Option(
            help="Global step at which training ends; default: end of input.", unit="steps", least=1
        ),
    ] = None
    ps_on_workers: Annotated[
        bool, Option(help="Workers host the parameters, a part each; no parameter servers.")
    ] = False
    chief_trains: Annotated[bool, Option(help="The chief's process runs a worker as well.")] = False
    save_checkpoint_steps: Annotated[
        int | None, Option(help="Global steps between checkpoints.", unit="steps", least=1)
    ] = None
    max_wait_secs: Annotated[float, MAX_WAIT_OPTION] = MAX_WAIT_SECS
    heartbeat_secs: Annotated[
        float,
        Option(help="Seconds between two heartbeats of a task.", unit="seconds", is_positive=True),
    ] = 1.0
    lease_secs: Annotated[
        float,
        Option(help="Seconds of silence after which a task counts as lost.", unit="seconds"),
    ] = 10.0
    mirror_secs: Annotated[
        float | None,
        Option(
            help="Seconds of steps that the loss of a parameter server may cost: restore points "
            "lie in its neighbour's memory; 0: none, the model returns to a checkpoint.",
            unit="seconds",
            panel=RECOVERY_PANEL,
            is_positive=True,
            zero_is_none=True,
        ),
    ] = None
    recovery: Annotated[
        str,
        Option(
            help="rollback: all return to one restore point; partial (async): only the new "
            "server does.",
            choices=RECOVERIES,
            panel=RECOVERY_PANEL,
        ),
    ] = "rollback"
    stall_secs: Annotated[
        float,
        Option(
            help="Seconds without a step after which a hang is reported, and resolved after twice "
            "as long; default: 60 or three leases; 0: never.",
            unit="seconds",
            panel=RECOVERY_PANEL,
        ),
    ] = None  # type: ignore[assignment]  # Replaced by a number at once.
    max_bad_records: Annotated[
        int,
        Option(
            help="Records of an input in shards that may fail and be left out; more end the job.",
            least=0,
        ),
    ] = 0
    evaluate: Annotated[
        bool,
        Option(
            flag="--eval/--no-eval",
            help="Evaluate the final checkpoint, if the model has an evaluation.",
        ),
    ] = True
    data_plane: DataPlane = field(default_factory=DataPlane)

    def __post_init__(self) -> None:
        if self.num_ps is None:
            object.__setattr__(self, "num_ps", self.num_workers if self.ps_on_workers else 1)
        least = 0 if self.chief_trains else 1
        if self.num_workers < least:
            raise UsageError(f"--workers {self.num_workers}: expected at least {least}")
        self._check_hosts()
        check_ranges(self)
        self._check_replicas()
        self._check_recovery()
        if self.lease_secs < 2 * self.heartbeat_secs:
            raise UsageError(
                f"--lease-secs {self.lease_secs:g} with --heartbeat-secs {self.heartbeat_secs:g}: "
                "a lease has to outlast two heartbeats"
            )
        self._check_stall_secs()
        check_combination(self.data_plane, self.sync)
        if not self.logdir:
            raise UsageError("--logdir is empty: name a directory for checkpoints and events")
        scheme, is_url, place = self.logdir.partition("://")
        if is_url and not place.strip("/"):
            raise UsageError(
                f"--logdir {self.logdir!r} has only a scheme: expected {scheme}://PLACE/DIRECTORY"
            )

    @property
    def trainers(self) -> int:
        """Tasks that compute gradients, as planned."""
        return self.num_workers + (1 if self.chief_trains else 0)

    @property
    def aggregate(self) -> int:
        """Gradients per global step in sync mode; 0: one of each worker that is there."""
        if self.replicas_to_aggregate == ALL:
            return 0
        return int(self.replicas_to_aggregate or self.trainers)

    def _check_hosts(self) -> None:
        if not self.ps_on_workers:
            return
        if self.num_workers == 0:
            raise UsageError(
                "--ps-on-workers with --workers 0: the parameters need a worker to lie on"
            )
        if self.num_ps != self.num_workers:
            raise UsageError(
                f"--ps {self.num_ps} with --ps-on-workers and --workers {self.num_workers}: each "
                "worker hosts one part of the parameters; leave --ps out"
            )
        # These options treat a worker's own state and that of a parameter server differently.
        for name, value in lagging(self.data_plane).items():
            raise UsageError(
                f"--{name.replace('_', '-')} {value} with --ps-on-workers: parameters on a worker "
                "have no copies that lag behind; leave one of them out"
            )

    def _check_replicas(self) -> None:
        replicas = self.replicas_to_aggregate
        if isinstance(replicas, str) and replicas != ALL:
            raise UsageError(f"--replicas-to-aggregate {replicas!r}: expected a number or {ALL}")

    def _check_stall_secs(self) -> None:
        if self.stall_secs is None:
            object.__setattr__(self, "stall_secs", max(STALL_SECS, STALL_LEASES * self.lease_secs))
        # Earlier, a lost worker may not have been noticed yet.
        if self.stall_secs and not self.stall_secs > self.lease_secs:
            raise UsageError(
                f"--stall-secs {self.stall_secs:g} with --lease-secs {self.lease_secs:g}: a stall "
                "has to outlast a lease; give more, or 0 to wait forever"
            )

    def _check_recovery(self) -> None:
        if self.recovery == "partial" and self.sync:
            raise UsageError(
                "--recovery partial with --sync: there all parameters are of one step; leave it "
                "out, or give --async"
            )


def for_any_folder(options: JobOptions) -> JobOptions:
    """Returns the same for a process that may run in another folder, and reads text."""
    is_url = "://" in options.logdir
    logdir = options.logdir if is_url else str(Path(options.logdir).resolve())
    params = {key: str(value) for key, value in options.params.items()}
    return replace(options, logdir=logdir, params=params)


def new_job_id() -> str:
    """Makes an identifier that no other run has."""
    return os.urandom(6).hex()


@dataclass(frozen=True)
class JobResult:
    """The result of a job; `LOGDIR/result.json` has the same fields.

    Attributes:
        global_step: Updates of the parameters, over the model's whole life.
        loss: The newest loss, averaged over the workers; None when no step was made.
        examples: Examples applied, over the model's whole life.
        seconds: From the first step of this run to its last.
        steps_per_second: Global steps per second, in this run.
        eval: Evaluation metrics of the final checkpoint, by name; empty without evaluation.
        checkpoint: Path of the final checkpoint.
        workers: Workers planned.
        ps: Parameter servers.
        sync: Whether gradients were aggregated.
        reason: Reason of the end: "max_steps", "end_of_input", "stopped" or "failed".
        logdir: The job's directory.
        bad_records: Records of an input in shards that were set aside: not read any more, or not in
            one epoch, because they failed again and again.
        set_aside: The newest 100 ranges of them, with the fields of `SetAside` in status.proto.
        error: The error of a failed job.
        job_id: Unique to the run.
    """

    global_step: int
    loss: float | None
    examples: int
    seconds: float
    steps_per_second: float
    eval: Mapping[str, float]
    checkpoint: str
    workers: int
    ps: int
    sync: bool
    reason: str
    logdir: str
    bad_records: int = 0
    set_aside: Sequence[Mapping[str, Any]] = field(default_factory=list)
    error: str = ""
    job_id: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JobResult:
        """Reads the result of `dataclasses.asdict`."""
        return cls(**values)
