"""`paramserve status|stop|checkpoint`: ask a running job, found by address or log directory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from ..cluster.security import SecurityOptions
from ..cluster.status_client import NoAnswer, StatusClient, find_chief
from ..errors import JobFailed, UsageError, WaitTimeout
from ..protos import status_pb2 as pb
from . import arguments as args
from .options import take_options
from .status_view import show_status

SCALE_LOOK_SECS = 0.1

Chief = Annotated[
    str | None, typer.Option("--chief", help="HOST:PORT of the chief's control service.")
]
Logdir = Annotated[str | None, typer.Option("--logdir", help="Log directory of the running job.")]


@take_options(SecurityOptions, defaults={})
def status(
    chief: Chief = None,
    logdir: Logdir = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    all_tasks: Annotated[
        bool, typer.Option("--all", help="Every task, also of a job with more than 100.")
    ] = False,
    debug: args.Debug = False,
    **security: Any,
) -> None:
    """Shows a running job: its phase, global step, speed, loss, checkpoint, and its tasks.

    Of more than 100 tasks it shows totals, and those that are lost, silent or slow.
    """
    with args.ending_with_exit_code(debug), _asking(chief, logdir, security) as job:
        answer = job.status(all_tasks=all_tasks)
        if json:
            typer.echo(to_json(answer))
        else:
            show_status(answer)


@take_options(SecurityOptions, defaults={})
def stop(
    chief: Chief = None, logdir: Logdir = None, debug: args.Debug = False, **security: Any
) -> None:
    """Ends a running job with a checkpoint; the same `run` command resumes from it."""
    with args.ending_with_exit_code(debug), _asking(chief, logdir, security) as job:
        job.stop()
        typer.echo(f"the job at {job.address} is ending")


@take_options(SecurityOptions, defaults={})
def checkpoint(
    chief: Chief = None, logdir: Logdir = None, debug: args.Debug = False, **security: Any
) -> None:
    """Requests a checkpoint of a running job, and waits for it."""
    with args.ending_with_exit_code(debug), _asking(chief, logdir, security) as job:
        saved = job.save_checkpoint()
        typer.echo(f"{saved.path} (global step {saved.global_step})")


@take_options(SecurityOptions, defaults={})
def scale(
    chief: Chief = None,
    logdir: Logdir = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Workers that the job is to have.")
    ] = None,
    ps: Annotated[
        int | None, typer.Option("--ps", help="Parameter servers that the job is to have.")
    ] = None,
    max_wait_secs: args.MaxWaitSecs = 600.0,
    debug: args.Debug = False,
    **security: Any,
) -> None:
    """Changes the number of workers or parameter servers of a running job, and waits for it.

    The model moves between the parameter servers while steps stand still for a moment; nothing is
    restored. `paramserve run` starts and ends the processes. A job that was started by hand waits
    for those that you start: workers, and parameter servers with --spare.
    """
    with args.ending_with_exit_code(debug), _asking(chief, logdir, security) as job:
        before = job.status()
        job.scale(workers=workers, ps=ps)
        _await_scaled(job, before, ps, max_wait_secs)


def _await_scaled(
    job: StatusClient, before: pb.JobStatus, ps: int | None, max_wait_secs: float
) -> None:
    deadline = time.monotonic() + max_wait_secs
    while missing := _missing(answer := job.status(), before):
        if ps not in (None, answer.wanted_ps):
            raise JobFailed(
                f"the job stays at {answer.num_ps} parameter servers: the model does not build "
                f"with {ps}, see the chief's log"
            )
        if answer.phase in ("stopping", "evaluating", "done", "failed"):
            raise JobFailed(f"the job is {answer.phase}, and will not have {missing} any more")
        if time.monotonic() > deadline:
            raise WaitTimeout(
                f"--max-wait-secs {max_wait_secs:g} ran out: the job has not {missing} yet; "
                "it continues without this command, see `paramserve status`"
            )
        time.sleep(SCALE_LOOK_SECS)
    has_moved = answer.resizes > before.resizes
    paused = f"; steps stood still for {answer.resize_secs:.2f} s" if has_moved else ""
    typer.echo(
        f"workers: {answer.wanted_workers}, parameter servers: {answer.num_ps}, "
        f"at global step {answer.global_step}{paused}"
    )


def _missing(answer: pb.JobStatus, before: pb.JobStatus) -> str:
    """Returns the tasks that the job still lacks; empty when it has all."""
    is_moving = answer.wanted_ps != before.num_ps and answer.resizes == before.resizes
    if is_moving or answer.num_ps != answer.wanted_ps:
        return f"{answer.wanted_ps} parameter servers"
    workers = sum(task.role == "worker" and task.state == "up" for task in answer.tasks)
    return f"{answer.wanted_workers} workers" if workers != answer.wanted_workers else ""


def to_json(answer: pb.JobStatus) -> str:
    """Converts a status for programs: every field, under the names of status.proto."""
    text: str = json_format.MessageToJson(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return text


@contextmanager
def _asking(
    chief: str | None, logdir: str | None, security: Mapping[str, Any]
) -> Iterator[StatusClient]:
    """Connects to a job; where it does not answer a call, says why, if that can be found out."""
    if (chief is None) == (logdir is None):
        raise UsageError("which job? Give either --chief HOST:PORT or --logdir DIR")
    access = SecurityOptions(**security).access(logdir)
    try:
        client = StatusClient(chief if chief is not None else find_chief(str(logdir)), access)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    with client:
        try:
            yield client
        except NoAnswer as error:
            if reason := client.diagnose():
                raise UsageError(reason) from error
            raise
