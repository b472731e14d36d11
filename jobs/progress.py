"""The progress of a job, for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..protos import status_pb2 as pb
from .hints import describe_running_job

# Without a terminal there is no bar: a line is printed whenever this much has happened.
LINE_SECS = 10.0
# Earlier, a missing task is normal; later it is named.
START_SECS = 30.0


class ProgressDisplay:
    """Shows a job's status as it changes.

    Args:
        console: Where to; a terminal gets a bar, anything else a line now and then.
        is_command: As of `describe_running_job`.
    """

    def __init__(self, console: Console, *, is_command: bool = True) -> None:
        self._console = console
        self._is_command = is_command
        self._bar = _Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[step]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,  # The result has the last word.
        )
        self._task: TaskID = self._bar.add_task("starting", total=None, step="")
        self._printed: tuple[str, float] = ("", 0.0)
        self._has_begun = False
        self._is_training = False

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, status: pb.JobStatus) -> None:
        """Takes over a new status."""
        if status.phase != "starting" and not self._has_begun:
            self._has_begun = True
            for line in describe_running_job(status.logdir, is_command=self._is_command):
                self._print(line)
        if status.phase == "training" and not self._is_training:
            self._is_training = True
            if not status.max_steps:
                self._print("no --max-steps: it trains until the input ends")
        step, words = describe_step(status), describe_pace(status)
        self._bar.words = words
        self._bar.update(
            self._task,
            description=status.phase,
            total=status.max_steps or None,
            completed=status.global_step,
            step=step,
        )
        if not self._console.is_terminal:
            self._print_line(status, *([step] if step else []), words)

    def _print_line(self, status: pb.JobStatus, *words: str) -> None:
        phase, printed_at = self._printed
        if status.phase == phase and status.uptime_secs - printed_at < LINE_SECS:
            return
        self._printed = (status.phase, status.uptime_secs)
        self._print(f"{status.phase:12} {'  '.join(words)}".rstrip())

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Bar(Progress):
    """A bar with a line of words below it, which may be long."""

    words = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Returns the bar, then the words."""
        yield self.make_tasks_table(self.tasks)
        if self.words:
            yield Text(f"  {self.words}")


def describe_step(status: pb.JobStatus) -> str:
    """Describes the progress of a job; empty before its first step."""
    limit = f"/{status.max_steps:,}" if status.max_steps else ""
    is_begun = status.global_step or status.phase == "training"
    return f"step {status.global_step:,}{limit}" if is_begun else ""


def describe_pace(status: pb.JobStatus) -> str:
    """Describes the speed of a job, or its phase if it does not train."""
    if status.phase == "waiting" and status.uptime_secs < START_SECS:
        up = sum(task.state == "up" for task in status.tasks)
        return f"{up} of {status.wanted_ps + status.wanted_workers} tasks up"
    if status.phase != "training" or (status.detail and not status.global_step):
        return status.detail
    workers = sum(task.role == "worker" and task.state == "up" for task in status.tasks)
    loss = f"{status.loss:.4g}" if status.HasField("loss") else "-"
    return (
        f"{status.steps_per_second:.1f} steps/s  {status.examples_per_second:,.0f} examples/s  "
        f"loss {loss}  workers {workers}"
    )
