"""The progress bar of `paramserve run`."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ..protos import status_pb2 as pb

# Without a terminal there is no bar: a line is printed whenever this much has happened.
LINE_SECS = 10.0


class ProgressDisplay:
    """Shows a job's status as it changes.

    Args:
        console: Where to; a terminal gets a bar, anything else a line now and then.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("starting", total=None, figures="")
        self._printed: tuple[str, float] = ("", 0.0)

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, status: pb.JobStatus) -> None:
        """Takes over a new status."""
        self._bar.update(
            self._task,
            description=status.phase,
            total=status.max_steps or None,
            completed=status.global_step,
            figures=figures(status),
        )
        if not self._console.is_terminal:
            self._print_line(status)

    def _print_line(self, status: pb.JobStatus) -> None:
        phase, printed_at = self._printed
        if status.phase == phase and status.uptime_secs - printed_at < LINE_SECS:
            return
        self._printed = (status.phase, status.uptime_secs)
        self._console.print(f"{status.phase:12} {figures(status)}", highlight=False, markup=False)


def figures(status: pb.JobStatus) -> str:
    """The figures of a status in one line."""
    if status.detail and not status.global_step:
        return status.detail
    workers = sum(1 for task in status.tasks if task.role == "worker" and task.state == "up")
    limit = f"/{status.max_steps:,}" if status.max_steps else ""
    loss = f"{status.loss:.4g}" if status.HasField("loss") else "-"
    return (
        f"step {status.global_step:,}{limit}  {status.steps_per_second:.1f} steps/s  "
        f"{status.examples_per_second:,.0f} examples/s  loss {loss}  workers {workers}"
    )
