"""`paramserve status|stop|checkpoint`: ask a running job, found by address or log directory."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from google.protobuf import json_format
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..cluster.status_client import StatusClient, find_chief
from ..errors import UsageError
from ..protos import status_pb2 as pb
from . import arguments as args

Chief = Annotated[
    str | None, typer.Option("--chief", help="HOST:PORT of the chief's control service.")
]
Logdir = Annotated[str | None, typer.Option("--logdir", help="Log directory of the running job.")]


def status(
    chief: Chief = None,
    logdir: Logdir = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    debug: args.Debug = False,
) -> None:
    """Shows a running job: its phase, global step, speed, loss, checkpoint, and every task."""
    with args.ending_with_exit_code(debug), _connect(chief, logdir) as job:
        answer = job.status()
        if json:
            typer.echo(to_json(answer))
        else:
            _show(answer)


def stop(chief: Chief = None, logdir: Logdir = None, debug: args.Debug = False) -> None:
    """Ends a running job with a checkpoint; the same `run` command goes on from it."""
    with args.ending_with_exit_code(debug), _connect(chief, logdir) as job:
        job.stop()
        typer.echo(f"the job at {job.address} is ending")


def checkpoint(chief: Chief = None, logdir: Logdir = None, debug: args.Debug = False) -> None:
    """Has a running job write a checkpoint, and waits for it."""
    with args.ending_with_exit_code(debug), _connect(chief, logdir) as job:
        saved = job.save_checkpoint()
        typer.echo(f"{saved.path} (global step {saved.global_step})")


def to_json(answer: pb.JobStatus) -> str:
    """A status for programs: every field, under the names of status.proto."""
    text: str = json_format.MessageToJson(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return text


def _connect(chief: str | None, logdir: str | None) -> StatusClient:
    if (chief is None) == (logdir is None):
        raise UsageError("which job? Give either --chief HOST:PORT or --logdir DIR")
    try:
        return StatusClient(chief if chief is not None else find_chief(str(logdir)))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error


def _show(answer: pb.JobStatus) -> None:
    console = Console()
    mode = "sync" if answer.sync else "async"
    limit = f" of {answer.max_steps:,}" if answer.max_steps else ""
    loss = f"{answer.loss:.5g}" if answer.HasField("loss") else "-"
    console.print(f"[bold]{answer.phase}[/] {escape(answer.detail)}".rstrip())
    console.print(
        f"global step {answer.global_step:,}{limit}, {answer.steps_per_second:.1f} steps/s, "
        f"{answer.examples_per_second:,.0f} examples/s, loss {loss}, {mode}, epoch {answer.epoch}"
    )
    if answer.checkpoint:
        age = time.time() - answer.checkpoint_time
        console.print(f"checkpoint {answer.checkpoint}, {age:.0f} s ago", soft_wrap=True)
    console.print(_task_table(answer))
    for task in answer.tasks:
        if task.variables:
            console.print(_describe_load(task), soft_wrap=True, markup=False)


def _task_table(answer: pb.JobStatus) -> Table:
    table = Table(
        "task", "state", "address", "heartbeat", "steps", "examples", "loss", "parameters"
    )
    for task in answer.tasks:
        is_worker = task.role == "worker"
        table.add_row(
            f"{task.role}:{task.index}",
            f"leaves in {task.leaves_in_secs:.0f} s" if task.leaves_in_secs else task.state,
            task.address,
            f"{task.heartbeat_age_secs:.1f} s ago" if task.state == "up" else "-",
            f"{task.local_steps:,}" if is_worker else "",
            f"{task.examples:,}" if is_worker else "",
            f"{task.loss:.5g}" if task.HasField("loss") else "",
            "" if is_worker else f"{task.parameter_bytes / 1e6:.2f} MB",
        )
    return table


def _describe_load(task: pb.TaskStatus) -> str:
    """What a parameter server holds, and what one worker takes from it and sends to it."""
    held, pulled, pushed = (
        f"{count / 1e6:.2f} MB"
        for count in (task.largest_variable_bytes, task.pulled_bytes, task.pushed_bytes)
    )
    return (
        f"{task.role}:{task.index}: {task.variables} variables, "
        f"the largest {task.largest_variable} ({held}); a step of a worker "
        f"takes {pulled} and sends {pushed}, in {task.transfers} transfers"
    )
