"""`paramserve run`: a whole job from one command, with a progress bar."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from ..cluster.signals import GRACE_SECS
from ..data_plane.options import BUCKET_BYTES, DataPlane
from ..errors import ExitCode
from ..jobs.hints import show_command
from ..jobs.launch.restarts import MAX_RESTARTS, WINDOW_SECS
from ..jobs.options import JobResult
from ..jobs.progress import ProgressDisplay
from . import arguments as args

_PROCESSES = "What starts the processes, and where"
LauncherName = Annotated[
    str,
    typer.Option(
        "--launcher",
        metavar="ray|process",
        help="process: plain ones, on this host.",
        rich_help_panel=_PROCESSES,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="Running Ray cluster, or local for one of this job's own; default: RAY_ADDRESS, or "
        "local.",
        rich_help_panel=_PROCESSES,
    ),
]
GpusPerWorker = Annotated[
    float,
    typer.Option(
        "--gpus-per-worker",
        help="GPUs of each worker, as Ray counts them.",
        rich_help_panel=_PROCESSES,
    ),
]
MaxRestarts = Annotated[
    int,
    typer.Option(
        "--max-restarts",
        help="Killed tasks that are started again within --restart-window-secs, in all.",
    ),
]
RestartWindowSecs = Annotated[
    float,
    typer.Option(
        "--restart-window-secs", help="Seconds after which a restart does not count any more."
    ),
]


# Ranges of records that were left out which the summary lists; result.json has more.
_SOME = 5


def run(
    model: args.Model,
    ps: args.Ps = None,
    workers: args.Workers = 2,
    ps_on_workers: args.PsOnWorkers = False,
    sync: args.Sync = True,
    replicas_to_aggregate: args.ReplicasToAggregate = None,
    max_steps: args.MaxSteps = None,
    logdir: args.Logdir = "runs/default",
    launcher: LauncherName = "ray",
    ray_address: RayAddress = None,
    gpus_per_worker: GpusPerWorker = 0.0,
    chief_trains: args.ChiefTrains = False,
    save_checkpoint_secs: args.CheckpointSecs = 600.0,
    save_checkpoint_steps: args.CheckpointSteps = None,
    keep_checkpoints: args.KeepCheckpoints = 5,
    save_summaries_steps: args.SummariesSteps = 100,
    max_wait_secs: args.MaxWaitSecs = 600.0,
    heartbeat_secs: args.HeartbeatSecs = 1.0,
    lease_secs: args.LeaseSecs = 10.0,
    mirror_secs: args.MirrorSecs = 0.0,
    recovery: args.Recovery = "rollback",
    stall_secs: args.StallSecs = None,
    spares: args.Spares = 0,
    max_bad_records: args.MaxBadRecords = 0,
    evaluate: args.Evaluate = True,
    transfer_bucket_bytes: args.TransferBucketBytes = BUCKET_BYTES,
    storage: args.Storage = "plain",
    max_shard_bytes: args.MaxShardBytes = None,
    wire_dtype: args.WireDtype = "float32",
    stale_pull: args.StalePull = False,
    local_steps: args.LocalSteps = 1,
    max_staleness: args.MaxStaleness = None,
    top_k: args.TopK = None,
    param: args.Params = None,
    port: Annotated[
        int, typer.Option("--port", help="Port of the chief's control service; 0: a free one.")
    ] = 0,
    metrics_port: args.MetricsPort = 0,
    max_restarts: MaxRestarts = MAX_RESTARTS,
    restart_window_secs: RestartWindowSecs = WINDOW_SECS,
    grace_secs: args.GraceSecs = GRACE_SECS,
    debug: args.Debug = False,
) -> None:
    """Trains a model: starts a chief, parameter servers and workers, and ends them all.

    Ctrl-C once ends the job with a checkpoint, and the same command goes on from it.
    """
    from ..jobs.job import Job

    console = Console(stderr=True)
    with args.ending_with_exit_code(debug):
        job = Job(
            model,
            logdir=logdir,
            launcher=launcher,
            ray_address=ray_address,
            gpus_per_worker=gpus_per_worker,
            num_ps=ps,
            num_workers=workers,
            ps_on_workers=ps_on_workers,
            sync=sync,
            replicas_to_aggregate=args.parse_replicas(replicas_to_aggregate),
            max_steps=max_steps,
            chief_trains=chief_trains,
            save_checkpoint_secs=save_checkpoint_secs or None,
            save_checkpoint_steps=save_checkpoint_steps,
            keep_checkpoints=keep_checkpoints,
            save_summaries_steps=save_summaries_steps,
            max_wait_secs=max_wait_secs,
            heartbeat_secs=heartbeat_secs,
            lease_secs=lease_secs,
            mirror_secs=mirror_secs or None,
            recovery=recovery,
            stall_secs=stall_secs,
            max_bad_records=max_bad_records,
            evaluate=evaluate,
            data_plane=DataPlane(
                transfer_bucket_bytes=transfer_bucket_bytes,
                storage=storage,
                max_shard_bytes=max_shard_bytes,
                wire_dtype=wire_dtype,
                stale_pull=stale_pull,
                local_steps=local_steps,
                max_staleness=max_staleness,
                top_k=top_k,
            ),
            params=args.parse_params(param),
            port=port,
            metrics_port=metrics_port,
            max_restarts=max_restarts,
            restart_window_secs=restart_window_secs,
            grace_secs=grace_secs,
            spares=spares,
            debug=debug,
        )
        with (
            _stop_on_signal(console) as stop,
            ProgressDisplay(console) as display,
        ):
            result = job.run(display.show, stop)
        _show_result(result)
    if stop.is_set():
        raise typer.Exit(ExitCode.INTERRUPTED)


@contextmanager
def _stop_on_signal(console: Console) -> Iterator[threading.Event]:
    """The first Ctrl-C (or SIGTERM) sets the event, the second ends at once."""
    stop = threading.Event()

    def handle(signum: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        console.print("stopping with a checkpoint; once more to end at once")

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _show_result(result: JobResult) -> None:
    console = Console(soft_wrap=True, highlight=False)
    loss = "-" if result.loss is None else f"{result.loss:.5g}"
    console.print(
        f"global step {result.global_step:,} ({result.reason}), loss {loss}, "
        f"{result.examples:,} examples, {result.seconds:.1f} s, "
        f"{result.steps_per_second:.1f} steps/s",
        soft_wrap=not console.is_terminal,
    )
    if result.eval:
        metrics = (f"{name} [bold]{_figure(value)}[/]" for name, value in result.eval.items())
        console.print(f"evaluation: {', '.join(metrics)}")
    if result.bad_records:
        console.print(f"input: {result.bad_records:,} records were left out", style="bold")
        for each in result.set_aside[-_SOME:]:
            console.print(f"  {_describe_range(each)}", markup=False)
    for line in (
        f"checkpoint: {result.checkpoint or 'none'}",
        f"log directory: {result.logdir}",
        f"look further: {show_command('tensorboard', '--logdir', result.logdir)}",
    ):
        console.print(line, markup=False)


def _describe_range(aside: Mapping[str, Any]) -> str:
    where = aside["file"] or "the dataset"
    when = "" if aside["for_good"] else f" in epoch {aside['epoch'] + 1}"
    return f"{where}, records {aside['first']} to {aside['last']}{when}: {aside['reason']}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() and abs(value) > 1 else f"{value:.4f}"
