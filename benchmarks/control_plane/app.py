"""The command line: how many tasks, and where the results go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ...cli.arguments import ending_with_exit_code
from ..plot import check_plot
from .report import figure_table, plot_points, write_json
from .trial import Figures, Settings, measure

POINTS = (10, 100, 1_000, 10_000)
_DEFAULTS = Settings()


def control_plane(
    workers: Annotated[
        list[int] | None,
        typer.Option("--workers", min=1, help="May be repeated; default: 10 to 10,000."),
    ] = None,
    ps: Annotated[
        int, typer.Option("--ps", min=1, help="Simulated parameter servers, at most.")
    ] = _DEFAULTS.ps,
    secs: Annotated[
        float, typer.Option("--secs", min=1.0, help="Length of a measured window.")
    ] = _DEFAULTS.secs,
    heartbeat_secs: Annotated[
        float, typer.Option("--heartbeat-secs", min=0.1, help="Between two of a task.")
    ] = _DEFAULTS.heartbeat_secs,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="They share the simulated tasks.")
    ] = _DEFAULTS.processes,
    max_wait_secs: Annotated[
        float, typer.Option("--max-wait-secs", min=1.0, help="Bound of each wait.")
    ] = _DEFAULTS.max_wait_secs,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures here.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw them into this PNG.")] = None,
) -> None:
    """Measures one real chief under simulated tasks, which register, stay and receive its news."""
    with ending_with_exit_code(debug=False):
        if plot is not None:
            check_plot(plot)
        settings = Settings(
            ps=ps,
            heartbeat_secs=heartbeat_secs,
            lease_secs=4 * heartbeat_secs,
            secs=secs,
            processes=processes,
            max_wait_secs=max_wait_secs,
        )
        points: list[Figures] = []
        for count in workers or POINTS:
            points.append(measure(count, settings))
            Console(width=160).print(figure_table(points[-1:]))
        Console(width=160).print(figure_table(points))
        if json_file is not None:
            write_json(json_file, points, settings)
        if plot is not None:
            plot_points(points, plot)
