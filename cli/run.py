"""`paramserve run`: a whole job from one command, with a progress bar."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from ..cluster.security import SecurityOptions
from ..data_plane.options import DataPlane
from ..errors import ExitCode
from ..jobs.hints import show_command
from ..jobs.launch_options import LaunchOptions
from ..jobs.options import JobOptions, JobResult
from ..jobs.progress import ProgressDisplay
from ..option import definitions
from . import arguments as args
from .config_file import Config
from .dry_run import show_plan
from .options import read_values, take_options

# Ranges of records that were left out which the summary lists; result.json has more.
_SOME = 5


@take_options(JobOptions, LaunchOptions, defaults={"num_workers": 2, "logdir": "runs/default"})
def run(
    context: typer.Context,
    model: args.Model,
    config: Config = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the processes and each option's value with its origin; start nothing.",
        ),
    ] = False,
    **values: Any,
) -> None:
    """Trains a model: starts a chief, parameter servers and workers, and ends them all.

    The first Ctrl-C ends the job with a checkpoint; the same command resumes from it.
    """
    from ..jobs.job import Job

    console = Console(stderr=True)
    with args.ending_with_exit_code(values["debug"]):
        given = read_values(JobOptions, LaunchOptions, values=values)
        parts = {"data_plane": _take(DataPlane, given), "security": _take(SecurityOptions, given)}
        job = Job(model, **parts, **given)
        if dry_run:
            show_plan(context, job)
            return
        with (
            _stop_on_signal(console) as stop,
            ProgressDisplay(console) as display,
        ):
            result = job.run(display.show, stop)
        _show_result(result)
    if stop.is_set():
        raise typer.Exit(ExitCode.INTERRUPTED)


def _take(cls: type, values: dict[str, Any]) -> Any:
    """Builds a part of the options from values, and takes them out."""
    return cls(**{name: values.pop(name) for name in definitions(cls) if name in values})


@contextmanager
def _stop_on_signal(console: Console) -> Iterator[threading.Event]:
    """Sets the event at the first Ctrl-C (or SIGTERM); the second one ends at once."""
    stop = threading.Event()

    def handle(signum: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        console.print("stopping with a checkpoint; press Ctrl-C again to end at once")

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
