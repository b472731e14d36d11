"""The output of `paramserve status` for people."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..protos import status_pb2 as pb

_COLUMNS = ("task", "state", "address", "heartbeat")
_GAP = 2
# The last column is wrapped, to no less than this.
_LAST_WIDTH = 24
# Without a terminal nothing is wrapped: programs read the lines.
_ANY_WIDTH = 10_000


def show_status(answer: pb.JobStatus) -> None:
    """Prints the status of a job to standard output."""
    rows = [_cells(task) for task in answer.tasks]
    terminal = Console()
    width = max(terminal.width, _fixed_width(rows) + _LAST_WIDTH)
    console = Console(width=width if terminal.is_terminal else _ANY_WIDTH, highlight=False)
    detail = answer.detail.removeprefix(answer.phase).strip()
    console.print(f"[bold]{answer.phase}[/] {escape(detail)}".rstrip())
    console.print(_describe_progress(answer))
    if answer.checkpoint:
        age = time.time() - answer.checkpoint_time
        console.print(
            f"checkpoint {answer.checkpoint}, {age:.0f} s ago", soft_wrap=True, markup=False
        )
    if answer.num_tasks > len(answer.tasks):
        console.print(_describe_totals(answer), markup=False)
    if rows:
        console.print(_task_table(rows))
    for task in answer.tasks:
        if task.variables:
            console.print(_describe_load(task), markup=False)


def _describe_progress(answer: pb.JobStatus) -> str:
    limit = f" of {answer.max_steps:,}" if answer.max_steps else ""
    loss = f"{answer.loss:.5g}" if answer.HasField("loss") else "-"
    return (
        f"global step {answer.global_step:,}{limit}, {answer.steps_per_second:.1f} steps/s, "
        f"{answer.examples_per_second:,.0f} examples/s, loss {loss}, "
        f"{'sync' if answer.sync else 'async'}, generation {answer.generation}"
    )


def _describe_totals(answer: pb.JobStatus) -> str:
    counts = ", ".join(f"{each.count:,} {each.role} {each.state}" for each in answer.totals)
    return f"{counts}; here those that are lost, silent or slow, with --all every task:"


def _cells(task: pb.TaskStatus) -> tuple[str, ...]:
    return (
        f"{task.role}:{task.index}",
        f"leaves in {task.leaves_in_secs:.0f} s" if task.leaves_in_secs else task.state,
        task.address,
        f"{task.heartbeat_age_secs:.1f} s ago" if task.state == "up" else "-",
        _describe_work(task),
    )


def _describe_work(task: pb.TaskStatus) -> str:
    if task.role == "ps":
        work = f"{task.parameter_bytes / 1e6:.2f} MB"
    else:
        loss = f", loss {task.loss:.5g}" if task.HasField("loss") else ""
        work = f"{task.local_steps:,} steps, {task.examples:,} examples{loss}"
    return f"{work}; {task.error}" if task.error else work


def _fixed_width(rows: Sequence[tuple[str, ...]]) -> int:
    """Returns the width of all columns but the last, which are never cut."""
    columns = zip(_COLUMNS, *(row[:-1] for row in rows), strict=True)
    return sum(max(map(len, column)) + _GAP for column in columns)


def _task_table(rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for name in _COLUMNS:
        table.add_column(name, no_wrap=True)
    table.add_column("", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _describe_load(task: pb.TaskStatus) -> str:
    """Describes a parameter server's parameters, and its traffic with one worker."""
    held, pulled, pushed = (
        f"{count / 1e6:.2f} MB"
        for count in (task.largest_variable_bytes, task.pulled_bytes, task.pushed_bytes)
    )
    return (
        f"{task.role}:{task.index}: {task.variables} variables, "
        f"the largest {task.largest_variable} ({held}); a step of a worker "
        f"takes {pulled} and sends {pushed}, in {task.transfers} transfers"
    )
