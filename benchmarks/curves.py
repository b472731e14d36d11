"""The growth of a step's cost with the number of variables, of workers, or of bytes."""

from __future__ import annotations

from dataclasses import replace

from ..errors import UsageError
from .comparison import Case
from .task import Mode
from .trial import Settings

POINTS = {
    "variables": (10, 30, 100, 300, 1000, 2000),
    "workers": (1, 2, 3, 4),
    "bytes": (1, 4, 16, 64, 256),
}
AXES = {
    "variables": "variables (64x64 and 64)",
    "workers": "workers",
    "bytes": "MiB of variables",
}


def curve_cases(curve: str, workload: str, mode: Mode, settings: Settings) -> list[Case]:
    """Returns the cases along a curve.

    Args:
        curve: "variables", "workers" or "bytes".
        workload: The model on the curve of workers; the other curves have their own.
        mode: "async" or "sync".
        settings: The settings of all cases, except the one that the curve changes.

    Raises:
        UsageError: There is no such curve.
    """
    if curve not in POINTS:
        raise UsageError(f"--curve {curve!r}: expected one of {', '.join(POINTS)}")
    names = {"variables": "variables-{}", "bytes": "mebibytes-{}"}
    return [
        Case(
            names.get(curve, workload).format(point),
            mode,
            replace(settings, workers=point) if curve == "workers" else settings,
            point,
        )
        for point in POINTS[curve]
    ]
