"""The figures of the control plane as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from ..plot import new_figure, save_figure
from ..report import machine
from .trial import Figures, Settings

_COLUMNS = (
    *("workers", "ps", "held", "lost", "register s", "p50 ms", "p99 ms", "own lag p99 ms"),
    *("unanswered", "chief cores", "MB per 1,000", "over heard s", "next view s"),
)


def figure_table(points: Sequence[Figures]) -> Table:
    """Makes a table: a row a point."""
    table = Table(title="one chief, simulated tasks", title_justify="left")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for each in points:
        table.add_row(
            f"{each.workers:,}",
            f"{each.ps:,}",
            "all" if each.all_held else f"{each.held:,} of {each.tasks:,}",
            f"{each.lost:,}",
            f"{each.register_secs:.2f}",
            _millis(each.p50_secs),
            _millis(each.p99_secs),
            _millis(each.lag_p99_secs),
            f"{each.unanswered:,}",
            f"{each.chief_cores:.2f}",
            f"{each.bytes_per_thousand / 1e6:.1f}",
            _seconds(each.heard_secs),
            _seconds(each.ready_secs),
        )
    return table


def write_json(path: Path, points: Sequence[Figures], settings: Settings) -> None:
    """Writes all figures; a time without an end is null."""
    document = {
        "machine": machine(),
        "settings": asdict(settings),
        "points": [
            {
                name: None if isinstance(value, float) and math.isinf(value) else value
                for name, value in asdict(each).items()
            }
            for each in points
        ],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def plot_points(points: Sequence[Figures], path: Path) -> None:
    """Draws lines over the number of tasks, a panel a quantity; a dashed line grows linearly."""
    figure, panels = new_figure(4)
    quantities = {
        "chief, cores": [each.chief_cores for each in points],
        "chief, MB for all tasks": [each.memory_bytes / 1e6 for each in points],
        "p99 of a heartbeat, ms": [each.p99_secs * 1e3 for each in points],
        "registration of all, s": [each.register_secs for each in points],
    }
    tasks = [each.tasks for each in points]
    for panel, (title, values) in zip(panels, quantities.items(), strict=True):
        panel.plot(tasks, values, marker="o")
        linear = [values[-1] * count / tasks[-1] for count in tasks]
        panel.plot(tasks, linear, linestyle="--", color="C7", label="linear")
        panel.set_title(title, loc="left")
        panel.set_xlabel("tasks")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.legend()
    save_figure(figure, path)


def _millis(secs: float) -> str:
    return f"{secs * 1e3:.1f}" if math.isfinite(secs) else "never"


def _seconds(secs: float | None) -> str:
    return "never" if secs is None else f"{secs:.2f}"
