"""`paramserve chief|ps|worker`: one role in this process, from flags or `TF_CONFIG`."""

from __future__ import annotations

import atexit
import functools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Annotated

import typer

from ..cluster.address import Address, parse_address, parse_host
from ..cluster.chief_client import new_incarnation
from ..cluster.signals import GRACE_SECS, StopSignal, check_grace
from ..cluster.spec import ClusterSpec, Role, Task
from ..data_plane.options import BUCKET_BYTES
from ..errors import ExitCode, UsageError
from ..jobs.nesting import mark_task
from ..jobs.options import new_job_id
from ..model.references import split_reference
from . import arguments as args

DEFAULT_CHIEF_PORT = 7077
# A library that hangs at the end of the process does not hold it up for longer.
EXIT_SECS = 5.0
# How long the name of this host may take to resolve, as in a cluster that has just made it.
RESOLVE_SECS = 5.0

ChiefAddress = Annotated[
    str | None,
    typer.Option(
        "--chief",
        help="HOST:PORT of the chief's control service, an IPv6 host in brackets; default: "
        "TF_CONFIG's chief.",
    ),
]
Host = Annotated[
    str | None,
    typer.Option("--host", help="Name or address under which others reach this process."),
]
Port = Annotated[
    int | None, typer.Option("--port", help="Port of the TensorFlow server; 0 takes a free one.")
]
Index = Annotated[
    int | None, typer.Option("--index", help="Task index; default: the lowest free one.")
]
Incarnation = Annotated[
    str | None,
    typer.Option(
        "--incarnation",
        help="Unique to this life of the process; default: random. A launcher that gives it can "
        "tell the chief when the process has ended.",
    ),
]


def chief(
    model: args.Model,
    ps: args.Ps = None,
    workers: args.Workers = 1,
    ps_on_workers: args.PsOnWorkers = False,
    sync: args.Sync = True,
    replicas_to_aggregate: args.ReplicasToAggregate = None,
    max_steps: args.MaxSteps = None,
    logdir: args.Logdir = "runs/default",
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
    host: Host = None,
    port: Annotated[
        int | None,
        typer.Option("--port", help=f"Port of the control service; default {DEFAULT_CHIEF_PORT}."),
    ] = None,
    metrics_port: args.MetricsPort = 0,
    job_id: Annotated[str | None, typer.Option("--job-id", help="Unique to this run.")] = None,
    supervised: Annotated[
        bool,
        typer.Option(
            "--supervised",
            help="Tasks that are gone are started again by others, this one too: on SIGTERM it "
            "saves, and leaves the job to the next chief.",
        ),
    ] = False,
    grace_secs: args.GraceSecs = GRACE_SECS,
    incarnation: Incarnation = None,
    debug: args.Debug = False,
) -> None:
    """Runs the chief of a job in this process: membership, initialization, checkpoints, the end."""

    def run(stop: threading.Event) -> ExitCode:
        options = args.job_options(
            model=model,
            num_ps=ps,
            num_workers=workers,
            ps_on_workers=ps_on_workers,
            sync=sync,
            replicas_to_aggregate=args.parse_replicas(replicas_to_aggregate),
            max_steps=max_steps,
            logdir=logdir,
            chief_trains=chief_trains,
            save_checkpoint_secs=save_checkpoint_secs,
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
            transfer_bucket_bytes=transfer_bucket_bytes,
            storage=storage,
            max_shard_bytes=max_shard_bytes,
            wire_dtype=wire_dtype,
            stale_pull=stale_pull,
            local_steps=local_steps,
            max_staleness=max_staleness,
            top_k=top_k,
            params=param,
        )
        place = _Place.find(Role.CHIEF, host, port, None, DEFAULT_CHIEF_PORT)
        split_reference(model)  # Before TensorFlow is loaded.
        with args.loading(debug):
            from ..chief.draining import HandedOver
            from ..chief.process import ChiefConfig, run_chief

        train = None
        if chief_trains:
            # Its place is behind those of the launched workers.
            train = functools.partial(
                _train_in_chief, model, place.host, workers, incarnation or new_incarnation()
            )
        config = ChiefConfig(
            *(options, job_id or new_job_id(), place.host, place.port, metrics_port, train),
            supervised=supervised,
            grace_secs=grace_secs,
        )
        try:
            result = run_chief(config, stop)
        except HandedOver:
            return ExitCode.PREEMPTED
        # Who was asked to end is not done: whatever supervises it may start it again.
        was_stopped = result.reason == "stopped" and stop.is_set()
        return ExitCode.INTERRUPTED if was_stopped else ExitCode.DONE

    _run_role(Role.CHIEF, run, debug, grace_secs if supervised else None)


def ps(
    chief: ChiefAddress = None,
    host: Host = None,
    port: Port = None,
    index: Index = None,
    metrics_port: args.MetricsPort = 0,
    max_wait_secs: args.MaxWaitSecs = 600.0,
    spare: Annotated[
        bool, typer.Option("--spare", help="Stand by, to take the place of one that is lost.")
    ] = False,
    grace_secs: args.GraceSecs = GRACE_SECS,
    incarnation: Incarnation = None,
    debug: args.Debug = False,
) -> None:
    """Runs a parameter server in this process, until the chief ends the job.

    After SIGTERM it stays until its part of the model is safe, for --grace-secs at most.
    """

    def run(stop: threading.Event) -> ExitCode:
        place = _Place.find(Role.PS, host, port, index)
        config_chief = _chief_address(chief)
        with args.loading(debug):
            from ..cluster.parameter_server import ParameterServerConfig, run_parameter_server

        config = ParameterServerConfig(
            *(config_chief, place.host, place.port, place.index, metrics_port, max_wait_secs),
            spare=spare,
            grace_secs=grace_secs,
            incarnation=incarnation or new_incarnation(),
        )
        has_left = run_parameter_server(config, stop)
        return ExitCode.PREEMPTED if has_left else ExitCode.DONE

    _run_role(Role.PS, run, debug, grace_secs)


def worker(
    model: args.Model,
    chief: ChiefAddress = None,
    host: Host = None,
    port: Port = None,
    index: Index = None,
    metrics_port: args.MetricsPort = 0,
    max_wait_secs: args.MaxWaitSecs = 600.0,
    param: args.Params = None,
    grace_secs: args.GraceSecs = GRACE_SECS,
    incarnation: Incarnation = None,
    debug: args.Debug = False,
) -> None:
    """Runs a worker in this process, until the job or its input ends. It may join at any time.

    After SIGTERM it finishes its step and leaves.
    """

    def run(stop: threading.Event) -> ExitCode:
        params = args.parse_params(param)
        place = _Place.find(Role.WORKER, host, port, index)
        config_chief = _chief_address(chief)
        split_reference(model)  # Before TensorFlow is loaded.
        with args.loading(debug):
            from ..worker.process import WorkerConfig, run_worker

        config = WorkerConfig(
            model,
            config_chief,
            place.host,
            place.port,
            place.index,
            metrics_port,
            max_wait_secs,
            params,
            grace_secs,
            incarnation or new_incarnation(),
        )
        return ExitCode.PREEMPTED if run_worker(config, stop) else ExitCode.DONE

    _run_role(Role.WORKER, run, debug, grace_secs)


class _Place:
    """Where a role runs: its host, port and index, from flags first, then `TF_CONFIG`."""

    def __init__(self, host: str, port: int, index: int | None) -> None:
        self.host = host
        self.port = port
        self.index = index

    @classmethod
    def find(
        cls,
        role: Role,
        host: str | None,
        port: int | None,
        index: int | None,
        default_port: int = 0,
    ) -> _Place:
        own, task = _own_address(role)
        if index is None and task is not None and role is not Role.CHIEF:
            index = task.index
        if own is not None:
            host, port = host or own.host, own.port if port is None else port
        port = default_port if port is None else port
        if not 0 <= port <= 65535:
            raise UsageError(f"--port {port}: expected 0 to 65535")
        return cls(_checked_host(host) if host else _default_host(), port, index)


def _tf_config() -> tuple[ClusterSpec, Task] | None:
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        return ClusterSpec.from_tf_config(text)
    except ValueError as error:
        message = str(error)
        named = message.startswith("TF_CONFIG")
        raise UsageError(message if named else f"TF_CONFIG: {message}") from error


def _own_address(role: Role) -> tuple[Address | None, Task | None]:
    found = _tf_config()
    if found is None:
        return None, None
    spec, task = found
    if task.role is not role:
        raise UsageError(
            f"TF_CONFIG says this is {task}, but the command is `paramserve {role}`: run "
            f"`paramserve {task.role}`, or unset TF_CONFIG"
        )
    return parse_address(spec.address_of(task)), task


def _chief_address(chief: str | None) -> str:
    if chief is not None:
        try:
            return str(parse_address(chief, "--chief"))
        except ValueError as error:
            raise UsageError(str(error)) from error
    found = _tf_config()
    if found is None:
        raise UsageError("where is the chief? Give --chief HOST:PORT, or set TF_CONFIG")
    return found[0].address_of(Task(Role.CHIEF, 0))


def _checked_host(host: str) -> str:
    """The host that was given, once it resolves: names may get their addresses a moment late."""
    try:
        name = parse_host(host, "--host")
    except ValueError as error:
        raise UsageError(str(error)) from error
    deadline = time.monotonic() + RESOLVE_SECS
    while True:
        try:
            socket.getaddrinfo(name, None)
            return name
        except OSError as error:
            if time.monotonic() > deadline:
                raise UsageError(
                    f"--host {host!r} does not resolve here ({error.strerror}): give a name or "
                    "address under which other tasks reach this process"
                ) from error
        time.sleep(0.2)


def _default_host() -> str:
    """This host's name if others can resolve it, as in a cluster; else the loopback address."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return "127.0.0.1"
    return name


def _train_in_chief(
    model: str, host: str, index: int, incarnation: str, chief: str, stop: threading.Event
) -> None:
    """The worker of `--chief-trains`; how it fails, it tells the chief like any other."""
    from ..errors import ParamserveError
    from ..worker.process import WorkerConfig, run_worker

    try:
        config = WorkerConfig(model, chief, host, index=index, incarnation=incarnation)
        run_worker(config, stop)
    except ParamserveError as error:
        print(f"the chief's own worker: {error}", file=sys.stderr)


def _run_role(
    role: Role, run: Callable[[threading.Event], ExitCode], debug: bool, grace_secs: float | None
) -> None:
    """Runs a role to its end, and ends the process.

    TensorFlow's server has threads that never end, so the process is ended under them.

    Args:
        role: Which it is.
        run: Runs it; the event is set when the process is asked to end.
        debug: Whether to show tracebacks.
        grace_secs: How long it gets then; None: as long as it needs.
    """
    mark_task(role)
    signals = StopSignal()
    args.set_up_logging(debug)
    code = int(ExitCode.FAILED)
    try:
        with args.ending_with_exit_code(debug):
            if grace_secs is not None:
                check_grace(grace_secs)
                _end_in_time(signals.event, grace_secs)
            code = int(run(signals.event))
    except typer.Exit as end:
        code = end.exit_code
    except BaseException as error:
        import traceback

        from ..reasons import describe

        traceback.print_exc()
        print(f"error: {describe(error)}", file=sys.stderr)
    finally:
        _run_exit_functions()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_in_time(asked: threading.Event, grace_secs: float) -> None:
    """Ends a process that is asked to end and is busy for longer than its notice."""

    def end() -> None:
        asked.wait()
        time.sleep(grace_secs)
        print(f"the notice of {grace_secs:g} s is over: ended as it is", file=sys.stderr)
        sys.stderr.flush()
        os._exit(ExitCode.PREEMPTED)

    threading.Thread(target=end, name="grace", daemon=True).start()


def _run_exit_functions() -> None:
    """What libraries registered for the end, as TensorFlow does to remove its temporary files."""
    thread = threading.Thread(target=atexit._run_exitfuncs, name="exit-functions", daemon=True)
    thread.start()
    thread.join(EXIT_SECS)
