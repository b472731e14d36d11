"""`paramserve run --dry-run`: the processes that would start, and the source of each option."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from ..jobs.job import Job
from ..option import Definition, definitions

# Programs read these lines, so nothing is wrapped.
_ANY_WIDTH = 10_000


def show_plan(context: typer.Context, job: Job) -> None:
    """Prints the processes of a job, and each option with its value and its origin.

    Args:
        context: Knows where the values of the parameters come from.
        job: Has been made from them.
    """
    console = Console(width=_ANY_WIDTH, highlight=False)
    counts = job.processes.counts.items()
    processes = ", ".join(f"{count} {role}" for role, count in counts if count)
    console.print(f"model: {job.options.model}", markup=False)
    console.print(f"would start: {processes}", markup=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("option", "value", "from"):
        table.add_column(column, no_wrap=True)
    launch = job.processes.launch
    for values in (job.options, launch, job.options.data_plane, launch.security):
        for each in definitions(type(values)).values():
            table.add_row(each.key, _show(getattr(values, each.name)), _origin(context, each))
    console.print(table)


def _origin(context: typer.Context, each: Definition) -> str:
    source = context.get_parameter_source(each.name)
    kind = "DEFAULT" if source is None else source.name
    origins = {
        "COMMANDLINE": "command line",
        "ENVIRONMENT": each.variable,
        "DEFAULT_MAP": str(context.params.get("config")),
    }
    return origins.get(kind, "default")


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={each}" for key, each in value.items()) or "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value is None else str(value)
