"""A comparison as tables for people, and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from .comparison import Case, Comparison, Measurement
from .goals import Verdict
from .variants import VARIANTS
from .workloads.catalog import find_workload

_PACKAGES = ("tensorflow", "numpy", "ray", "torch", "grpcio")


def case_table(comparison: Comparison, case: Case) -> Table:
    """Makes the table of one case: a row a system, with the ratio of each of ours to it."""
    table = Table(title=case.title, title_justify="left")
    ours = [each.system for each in comparison.of_case(case) if each.system in VARIANTS]
    table.add_column("system", no_wrap=True)
    for column in ("steps/s", "range", "MB/s", "MB sent a step", "CPU ms a step", "receives"):
        table.add_column(column, justify="right")
    for name in ours:
        table.add_column(f"{name} /", justify="right")
    table.add_column("")
    for each in comparison.of_case(case):
        ratios = [_times(comparison.ratio(case, name, each.system)) for name in ours]
        table.add_row(each.system, *_figures(each), *ratios, each.trouble)
    return table


def curve_table(comparison: Comparison, axis: str) -> Table:
    """Makes a row a point, a column a system: steps per second."""
    systems = list(dict.fromkeys(each.system for each in comparison.measurements))
    table = Table(title="steps/s", title_justify="left")
    table.add_column(axis, justify="right")
    for name in systems:
        table.add_column(name, justify="right")
    for case in comparison.cases():
        rows = {each.system: each for each in comparison.of_case(case)}
        cells = [
            _number(rows[name].steps_per_sec) or rows[name].trouble.partition(":")[0]
            for name in systems
        ]
        table.add_row(str(case.point), *cells)
    return table


def goal_table(verdicts: Sequence[Verdict]) -> Table:
    """Makes a row a goal: reached, missed, or not measured."""
    table = Table(title="goals", title_justify="left")
    for column in ("workload", "mode", "ours", "against"):
        table.add_column(column)
    for column in ("at least", "measured"):
        table.add_column(column, justify="right")
    table.add_column("")
    for each in verdicts:
        goal = each.goal
        verdict = "reached" if each.reached else "missed"
        names = (goal.workload, goal.mode, goal.ours, goal.peer)
        table.add_row(*names, _times(goal.at_least), _times(each.ratio), verdict)
    return table


def limit_lines(comparison: Comparison) -> Iterator[str]:
    """Yields the machine's limits, a line each."""
    for name, values in comparison.limits.items():
        gigabytes = [value / 1e9 for value in values]
        yield (
            f"{name}: {median(gigabytes):.2f} GB/s "
            f"({min(gigabytes):.2f}-{max(gigabytes):.2f}), one thread, one direction"
        )


def write_json(
    path: Path, comparison: Comparison, verdicts: Sequence[Verdict], link: str | None
) -> None:
    """Writes all measurements."""
    document = {
        "machine": machine(),
        "link": link or "loopback",
        "limits_bytes_per_sec": comparison.limits,
        "measurements": [_as_dict(comparison, each) for each in comparison.measurements],
        "goals": [{**asdict(v.goal), "ratio": v.ratio, "reached": v.reached} for v in verdicts],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """Describes the machine of the measurements."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _as_dict(comparison: Comparison, each: Measurement) -> dict[str, Any]:
    return {
        "workload": each.case.workload,
        "mode": each.case.mode,
        "point": each.case.point,
        "settings": asdict(each.case.settings),
        "system": each.system,
        "steps_per_sec": each.steps_per_sec,
        "range": [min(each.rates), max(each.rates)] if each.rates else None,
        "trouble": each.trouble,
        "counts": each.counts,
        "ratios": {
            name: comparison.ratio(each.case, name, each.system)
            for name in VARIANTS
            if any(other.system == name for other in comparison.of_case(each.case))
        },
        "rounds": [asdict(outcome) for outcome in each.outcomes],
    }


def _figures(each: Measurement) -> list[str]:
    rates = each.rates
    spread = f"{_number(min(rates))}-{_number(max(rates))}" if rates else ""
    workload = find_workload(each.case.workload)
    rate = each.steps_per_sec
    moved = rate * workload.bytes_per_step / 1e6 if rate and not workload.sparse else None
    sent = each.median_of(lambda outcome: outcome.sent_bytes)
    busy = each.median_of(lambda outcome: outcome.cpu_secs)
    receives = each.counts.get("receives")
    return [
        _number(rate),
        spread,
        _number(moved),
        _number(None if sent is None else sent / 1e6),
        _number(None if busy is None else busy * 1e3),
        "" if receives is None else f"{receives:.0f}",
    ]


def _number(value: float | None) -> str:
    """Formats a number with three significant digits."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
