"""`paramserve chief|ps|worker`: one role in this process, from flags, a launcher or `TF_CONFIG`."""

from __future__ import annotations

import sys
import threading
from typing import Any

import typer

from ..cluster.spec import Role
from ..cluster.task_options import ParameterServerOptions
from ..errors import ExitCode, ParamserveError
from ..jobs.role_options import ChiefOptions, WorkerOptions
from ..model.references import split_reference
from . import arguments as args
from .config_file import Config
from .handed import Handed, take_values
from .options import take_options
from .role_process import run_role

# Omitted values may stand in TF_CONFIG.
_PLACE = {"host": None, "port": None}


@take_options(ChiefOptions, defaults={**_PLACE, "logdir": "runs/default"})
def chief(
    context: typer.Context,
    model: args.Model,
    config: Config = None,
    options: Handed = None,
    **values: Any,
) -> None:
    """Runs the chief of a job in this process: membership, initialization, checkpoints, the end."""
    given = take_values(ChiefOptions, context, options, values)
    run_role(Role.CHIEF, ChiefOptions, {**given, "model": model}, _run_chief)


@take_options(ParameterServerOptions, defaults=_PLACE)
def ps(
    context: typer.Context, config: Config = None, options: Handed = None, **values: Any
) -> None:
    """Runs a parameter server in this process, until the chief ends the job.

    After SIGTERM it stays until its part of the model is safe, for --grace-secs at most.
    """
    given = take_values(ParameterServerOptions, context, options, values)
    run_role(Role.PS, ParameterServerOptions, given, _run_ps)


@take_options(WorkerOptions, defaults=_PLACE)
def worker(
    context: typer.Context,
    model: args.Model,
    config: Config = None,
    options: Handed = None,
    **values: Any,
) -> None:
    """Runs a worker in this process, until the job or its input ends. It may join at any time.

    After SIGTERM it finishes its step and leaves.
    """
    given = take_values(WorkerOptions, context, options, values)
    run_role(Role.WORKER, WorkerOptions, {**given, "model": model}, _run_worker)


def _run_chief(options: ChiefOptions, stop: threading.Event) -> ExitCode:
    split_reference(options.job.model)  # Before TensorFlow is loaded.
    with args.loading(options.debug):
        from ..chief.draining import HandedOver
        from ..chief.process import run_chief

    def train(address: str, stop: threading.Event) -> None:
        _train_in_chief(options, address, stop)

    try:
        result = run_chief(options, stop, train if options.job.chief_trains else None)
    except HandedOver:
        return ExitCode.PREEMPTED
    # A process that was asked to end is not done: its supervisor may restart it.
    was_stopped = result.reason == "stopped" and stop.is_set()
    return ExitCode.INTERRUPTED if was_stopped else ExitCode.DONE


def _train_in_chief(chief: ChiefOptions, address: str, stop: threading.Event) -> None:
    """Runs the worker in the chief's own process; it reports a failure to the chief like others."""
    from ..worker.process import run_worker

    options = WorkerOptions(
        model=chief.job.model,
        chief=address,
        host=chief.host,
        index=chief.job.num_workers,  # Behind the launched workers.
        incarnation=chief.incarnation,
        security=chief.security,
    )
    try:
        run_worker(options, stop)
    except ParamserveError as error:
        print(f"the chief's own worker: {error}", file=sys.stderr)


def _run_ps(options: ParameterServerOptions, stop: threading.Event) -> ExitCode:
    with args.loading(options.debug):
        from ..cluster.parameter_server import run_parameter_server

    return ExitCode.PREEMPTED if run_parameter_server(options, stop) else ExitCode.DONE


def _run_worker(options: WorkerOptions, stop: threading.Event) -> ExitCode:
    split_reference(options.model)  # Before TensorFlow is loaded.
    with args.loading(options.debug):
        from ..worker.process import run_worker

    return ExitCode.PREEMPTED if run_worker(options, stop) else ExitCode.DONE
