"""A comparison as a picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .comparison import Case, Comparison, Measurement
from .variants import VARIANTS


def check_plot(path: Path) -> None:
    """Finds out before anything is measured that a plot cannot be drawn.

    Raises:
        UsageError: matplotlib is missing, or the file would be no PNG.
    """
    if path.suffix != ".png":
        raise UsageError(f"--plot {str(path)!r}: expected a file name that ends in .png")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'paramserve[bench]'")


def plot_cases(comparison: Comparison, path: Path) -> None:
    """Bars: a panel a case, a bar a system with its range."""
    cases = comparison.cases()
    figure, panels = new_figure(len(cases))
    for panel, case in zip(panels, cases, strict=True):
        _bars(panel, case, comparison.of_case(case))
    save_figure(figure, path)


def plot_curve(comparison: Comparison, axis: str, path: Path) -> None:
    """Draws a line a system: steps per second over the points."""
    figure, (panel,) = new_figure(1)
    for name in dict.fromkeys(each.system for each in comparison.measurements):
        line = [
            (each.case.point, each.steps_per_sec)
            for each in comparison.measurements
            if each.system == name and each.steps_per_sec is not None
        ]
        if line:
            panel.plot(*zip(*line, strict=True), marker="o", label=name)
    panel.set_xlabel(axis)
    panel.set_ylabel("global steps per second")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.legend()
    save_figure(figure, path)


def new_figure(panels: int) -> tuple[Any, list[Any]]:
    """Makes a figure with panels below each other, for `save_figure`."""
    # The figure's own canvas: no window system, and no state of the module `pyplot`.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.0 + 3.0 * panels), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(panels, 1, number + 1) for number in range(panels)]


def _bars(panel: Any, case: Case, measurements: list[Measurement]) -> None:
    names = [each.system for each in measurements]
    middles = [each.steps_per_sec or 0.0 for each in measurements]
    below = [
        each.steps_per_sec - min(each.rates) if each.steps_per_sec else 0.0 for each in measurements
    ]
    above = [
        max(each.rates) - each.steps_per_sec if each.steps_per_sec else 0.0 for each in measurements
    ]
    colors = ["C0" if name in VARIANTS else "C7" for name in names]
    bars = panel.barh(names, middles, xerr=[below, above], capsize=3, color=colors)
    labels = [
        f"{each.steps_per_sec:.3g}" if each.steps_per_sec else each.trouble.partition(":")[0]
        for each in measurements
    ]
    panel.bar_label(bars, labels, padding=4)
    panel.margins(x=0.15)
    panel.invert_yaxis()
    panel.set_title(case.title, loc="left")
    panel.set_xlabel("global steps per second (median, range)")


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
