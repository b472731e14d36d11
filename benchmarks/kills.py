"""`Kill`: the outcome of killing one process of a running job."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table


@dataclass(frozen=True)
class Kill:
    """One kill, and its outcome.

    Attributes:
        secs: Seconds from the kill to the next global step; infinite if there was none in time.
        steps_lost: Global steps that were made, and are not in the model any more.
        secs_lost: Seconds that it took to make them.
    """

    secs: float
    steps_lost: int
    secs_lost: float


def kill_table(results: Mapping[str, Sequence[Kill]]) -> Table:
    """Makes a table of the outcomes of each scenario, by its name."""
    table = Table(title="from SIGKILL to the next global step", title_justify="left")
    for column in ("killed", "kills", "p50 s", "p95 s", "max s", "steps lost p50", "s lost max"):
        table.add_column(column, justify="left" if column == "killed" else "right")
    for name, kills in results.items():
        secs = sorted(kill.secs for kill in kills)
        table.add_row(
            name,
            str(len(kills)),
            _shown(median(secs)),
            _shown(_percentile(secs, 0.95)),
            _shown(secs[-1]),
            f"{median(kill.steps_lost for kill in kills):g}",
            f"{max(kill.secs_lost for kill in kills):.1f}",
        )
    return table


def _shown(secs: float) -> str:
    return f"{secs:.2f}" if math.isfinite(secs) else "never"


def _percentile(ordered: Sequence[float], fraction: float) -> float:
    """Returns the value that a fraction of all do not exceed."""
    return ordered[math.ceil(len(ordered) * fraction) - 1]
