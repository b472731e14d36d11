"""The command line: which attacks, for how long, and where the results go."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from ...cli.arguments import ending_with_exit_code
from ...cluster.security import SecurityOptions
from ...cluster.token import TOKEN_VARIABLE, Right
from ...errors import JobFailed, UsageError
from ..recovery import PLAIN, RunningJob, Scenario, running_job
from ..report import machine

KINDS = ("noise", "forgery", "http1", "slow", "watchers", "tokens")
GOAL = 0.9
_END_SECS = 10.0
_SETTLE_SECS = 1.0


@dataclass(frozen=True)
class Window:
    """A while of training.

    Attributes:
        kind: The attack; empty: none.
        steps_per_sec: Global steps per second.
        chief_cores: Processor seconds of the chief in a second.
        memory_bytes: Memory of the chief at its end.
    """

    kind: str
    steps_per_sec: float
    chief_cores: float
    memory_bytes: int


def measure(kinds: Sequence[str], rounds: int, secs: float, per_sec: float) -> Iterator[Window]:
    """Trains, with quiet windows between those under attack."""
    with running_job(Scenario("attacked", "", ("--async",), PLAIN)) as job:
        job.wait("steps", lambda s: s.phase == "training" and s.global_step > 50)
        chief = psutil.Process(job.chief_pid())
        for _ in range(rounds):
            for kind in kinds:
                yield _window(job, chief, "", secs)
                with _attacker(job, kind, per_sec):
                    yield _window(job, chief, kind, secs)
        yield _window(job, chief, "", secs)


def ratios(windows: Sequence[Window]) -> dict[str, list[float]]:
    """Steps per second under each attack, divided by those of the quiet windows around it."""
    found: dict[str, list[float]] = {}
    for before, attacked, after in zip(windows, windows[1:], windows[2:], strict=False):
        if attacked.kind:
            quiet = (before.steps_per_sec + after.steps_per_sec) / 2
            found.setdefault(attacked.kind, []).append(attacked.steps_per_sec / quiet)
    return found


def ratio_table(windows: Sequence[Window]) -> Table:
    """A row an attack, with the median of its ratios."""
    table = Table(title="a running job under attack", title_justify="left")
    for column in ("attack", "steps/s", "of quiet", "range", "chief cores", "chief MB", ""):
        table.add_column(column, justify="left" if column == "attack" else "right")
    found = ratios(windows)
    for kind in dict.fromkeys(each.kind for each in windows):
        these = [each for each in windows if each.kind == kind]
        each = found.get(kind, [1.0])
        table.add_row(
            kind or "none",
            f"{median(window.steps_per_sec for window in these):.1f}",
            f"{median(each):.2f}",
            f"{min(each):.2f}-{max(each):.2f}",
            f"{median(window.chief_cores for window in these):.2f}",
            f"{max(window.memory_bytes for window in these) / 1e6:.0f}",
            "reached" if median(each) >= GOAL else "missed",
        )
    return table


def _window(job: RunningJob, chief: psutil.Process, kind: str, secs: float) -> Window:
    time.sleep(_SETTLE_SECS)
    before, cpu, began = _steps(job), _cpu_secs(chief), time.monotonic()
    time.sleep(secs)
    after, took = _steps(job), time.monotonic() - began
    cores = (_cpu_secs(chief) - cpu) / took
    return Window(kind, (after - before) / took, cores, int(chief.memory_info().rss))


def _steps(job: RunningJob) -> int:
    return job.wait("its status", lambda status: status.phase == "training").global_step


def _cpu_secs(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def _attacker(job: RunningJob, kind: str, per_sec: float) -> Iterator[None]:
    """An attacker with the token of a task: without one it would get less far."""
    command = [sys.executable, "-m", f"{__package__}.attacker", job.address(), kind, str(per_sec)]
    token = SecurityOptions().access(job.logdir).token
    environment = {**os.environ, TOKEN_VARIABLE: token.for_right(Right.MEMBER) if token else ""}
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    try:
        assert attacker.stdout is not None
        if not attacker.stdout.read(1):
            raise JobFailed(f"the attacker {kind!r} ended with code {attacker.wait(_END_SECS)}")
        yield
        if attacker.poll() is not None:
            raise JobFailed(f"the attacker {kind!r} ended with code {attacker.returncode}")
    finally:
        attacker.kill()
        attacker.wait(_END_SECS)


def attacks(
    kind: Annotated[
        list[str] | None, typer.Option("--kind", "-k", help="May be repeated; default: all.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Of all attacks.")] = 3,
    secs: Annotated[float, typer.Option("--secs", min=1.0, help="Length of a window.")] = 5.0,
    per_sec: Annotated[
        float, typer.Option("--per-sec", min=1.0, help="Calls or connections of the attacker.")
    ] = 200.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures here.")
    ] = None,
) -> None:
    """Measures the steps of a running job under each attack, beside quiet windows of the run."""
    with ending_with_exit_code(debug=False):
        for name in kind or ():
            if name not in KINDS:
                raise UsageError(f"--kind {name!r}: expected one of {', '.join(KINDS)}")
        windows = []
        for window in measure(kind or KINDS, rounds, secs, per_sec):
            windows.append(window)
            Console().print(f"{window.kind or 'quiet'}: {window.steps_per_sec:.1f} steps/s")
        Console().print(ratio_table(windows))
        if json_file is not None:
            found = {
                "machine": machine(),
                "ratios": ratios(windows),
                "windows": [asdict(window) for window in windows],
            }
            json_file.write_text(json.dumps(found, indent=2) + "\n")
