"""Time from the command to the first step, with thousands of variables.

`python -m paramserve.benchmarks.start` starts a job, and TensorFlow alone in one process with the
same model, in turn. Beside the time it takes the processor seconds of the busiest process, on which
other load has less influence: parameters are built by chief and workers at the same time.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from ..cli.arguments import ending_with_exit_code
from ..errors import JobFailed, WaitTimeout
from .start_model import NOTE, VARIABLES

MODEL = Path(__file__).with_name("start_model.py")
LOOK_SECS = 0.05
END_SECS = 60.0


@dataclass(frozen=True)
class Start:
    """The cost of a start, up to the first step.

    Attributes:
        secs: Seconds since the command was given.
        busiest_secs: Processor seconds of the process that used most.
        total_secs: Processor seconds of all processes.
    """

    secs: float
    busiest_secs: float
    total_secs: float


def measure(command: Sequence[str], note: Path, max_wait_secs: float) -> Start:
    """Runs a command until the first step is noted.

    Args:
        command: The command; it ends by itself after that step.
        note: The file in which the model notes the time of the step.
        max_wait_secs: Seconds to wait.

    Raises:
        JobFailed: The command ended before that step.
        WaitTimeout: There was no step in time.
    """
    began = time.time()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not note.exists():
            if process.poll() is not None:
                raise JobFailed(f"{' '.join(command)} ended with code {process.returncode}")
            if time.time() - began > max_wait_secs:
                raise WaitTimeout(f"max_wait_secs={max_wait_secs:g} ran out before the first step")
            time.sleep(LOOK_SECS)
        busy = [_cpu_secs(each) for each in (process, *process.children(recursive=True))]
        process.wait(END_SECS)
        return Start(float(note.read_text()) - began, max(busy), sum(busy))
    finally:
        for each in (*process.children(recursive=True), process) if process.is_running() else ():
            each.kill()


def _cpu_secs(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def start_of_job(variables: int, ps: int, workers: int, max_wait_secs: float) -> Start:
    """Starts a job of ours."""
    with tempfile.TemporaryDirectory(prefix="paramserve-start-") as folder:
        note = Path(folder, NOTE)
        command = [sys.executable, "-m", "paramserve", "run", f"{MODEL}:build", "--async"]
        command += ["--launcher", "process", "--ps", str(ps), "--workers", str(workers)]
        command += ["--max-steps", "1", "--no-eval", "--logdir", str(Path(folder, "job"))]
        command += ["--param", f"{VARIABLES}={variables}", "--param", f"{NOTE}={note}"]
        return measure(command, note, max_wait_secs)


def start_of_tensorflow(variables: int, max_wait_secs: float) -> Start:
    """Starts TensorFlow alone."""
    with tempfile.TemporaryDirectory(prefix="paramserve-start-") as folder:
        note = Path(folder, NOTE)
        call = "from paramserve.benchmarks.start_model import train_alone; "
        call += f"train_alone({variables}, {str(note)!r})"
        return measure([sys.executable, "-c", call], note, max_wait_secs)


def compare(variables: int, ps: int, workers: int, rounds: int, max_wait_secs: float) -> Table:
    """Measures both in turn; the table has medians."""
    found: dict[str, list[Start]] = {"paramserve": [], "tensorflow": []}
    for _ in range(rounds):
        found["tensorflow"].append(start_of_tensorflow(variables, max_wait_secs))
        found["paramserve"].append(start_of_job(variables, ps, workers, max_wait_secs))
    table = Table("", "s to the first step", "processor s, busiest", "processor s, all")
    medians = {
        name: [
            statistics.median(getattr(start, field) for start in starts)
            for field in ("secs", "busiest_secs", "total_secs")
        ]
        for name, starts in found.items()
    }
    for name, figures in medians.items():
        table.add_row(name, *(f"{figure:.1f}" for figure in figures))
    ratios = zip(medians["paramserve"], medians["tensorflow"], strict=True)
    table.add_row("ratio", *(f"{ours / theirs:.2f}" for ours, theirs in ratios))
    return table


def main(
    variables: Annotated[int, typer.Option(min=1, help="Variables of 8 elements.")] = 3000,
    ps: Annotated[int, typer.Option("--ps", min=1, help="Parameter servers.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Workers.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 3,
    max_wait_secs: Annotated[float, typer.Option(min=0.1, help="For a first step.")] = 600.0,
) -> None:
    """Measures the start of a job beside that of TensorFlow alone, and the ratios."""
    with ending_with_exit_code(debug=False):
        Console().print(compare(variables, ps, workers, rounds, max_wait_secs))


if __name__ == "__main__":
    typer.run(main)
