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
from typing import Annotated, Any

import typer

from ..cluster.address import Address, parse_address, parse_host
from ..cluster.chief_client import new_incarnation
from ..cluster.signals import GRACE_SECS, StopSignal, check_grace
from ..cluster.spec import ClusterSpec, Role, Task
from ..errors import ExitCode, UsageError
from ..jobs.handover import options_from_json
from ..jobs.nesting import mark_task
from ..jobs.options import JobOptions, new_job_id
from ..model.references import split_reference
from ..option import PREFIX, all_definitions, build
from . import arguments as args
from .config_file import Config
from .options import parse_params, read_values, take_options

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
        envvar=f"{PREFIX}CHIEF",
        show_envvar=False,
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        help="Name or address under which others reach this process.",
        envvar=f"{PREFIX}HOST",
        show_envvar=False,
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        help="Port of the TensorFlow server; 0 takes a free one.",
        envvar=f"{PREFIX}PORT",
        show_envvar=False,
    ),
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


@take_options(JobOptions, defaults={"logdir": "runs/default"})
def chief(
    context: typer.Context,
    model: args.Model,
    host: Host = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            help=f"Port of the control service; default {DEFAULT_CHIEF_PORT}.",
            envvar=f"{PREFIX}PORT",
            show_envvar=False,
        ),
    ] = None,
    tensorflow_port: args.TensorFlowPort = 0,
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
    config: Config = None,
    options: Annotated[
        str | None,
        typer.Option("--options", help="The job's options as JSON, from a launcher.", hidden=True),
    ] = None,
    debug: args.Debug = False,
    **values: Any,
) -> None:
    """Runs the chief of a job in this process: membership, initialization, checkpoints, the end."""

    def run(stop: threading.Event) -> ExitCode:
        if options is None:
            job = build(JobOptions, {"model": model, **read_values(JobOptions, values=values)})
        else:
            _refuse_flags_beside_options(context)
            job = options_from_json(model, options)
        place = _Place.find(Role.CHIEF, host, port, None, DEFAULT_CHIEF_PORT)
        split_reference(model)  # Before TensorFlow is loaded.
        with args.loading(debug):
            from ..chief.draining import HandedOver
            from ..chief.process import ChiefConfig, run_chief

        train = None
        if job.chief_trains:
            # Its place is behind those of the launched workers.
            own = (place.host, job.num_workers, incarnation or new_incarnation())
            train = functools.partial(_train_in_chief, model, *own)
        setup = ChiefConfig(
            *(job, job_id or new_job_id(), place.host, place.port, tensorflow_port, metrics_port),
            train=train,
            supervised=supervised,
            grace_secs=grace_secs,
        )
        try:
            result = run_chief(setup, stop)
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
    config: Config = None,
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

        setup = ParameterServerConfig(
            *(config_chief, place.host, place.port, place.index, metrics_port, max_wait_secs),
            spare=spare,
            grace_secs=grace_secs,
            incarnation=incarnation or new_incarnation(),
        )
        has_left = run_parameter_server(setup, stop)
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
    config: Config = None,
    debug: args.Debug = False,
) -> None:
    """Runs a worker in this process, until the job or its input ends. It may join at any time.

    After SIGTERM it finishes its step and leaves.
    """

    def run(stop: threading.Event) -> ExitCode:
        params = parse_params(param)
        place = _Place.find(Role.WORKER, host, port, index)
        config_chief = _chief_address(chief)
        split_reference(model)  # Before TensorFlow is loaded.
        with args.loading(debug):
            from ..worker.process import WorkerConfig, run_worker

        setup = WorkerConfig(
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
        return ExitCode.PREEMPTED if run_worker(setup, stop) else ExitCode.DONE

    _run_role(Role.WORKER, run, debug, grace_secs)


def _refuse_flags_beside_options(context: typer.Context) -> None:
    """Refuses flags that the JSON would silently overrule.

    Raises:
        UsageError: There is one.
    """
    for each in all_definitions(JobOptions):
        source = context.get_parameter_source(each.name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{each.first_flag} beside --options, which has it: leave one out")


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
