"""The command line: the choice of cases and systems, and of the place of the results."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from ..cli.arguments import ending_with_exit_code
from ..errors import UsageError
from .comparison import Case, Comparison, Report, Work, compare
from .curves import AXES, curve_cases
from .goals import GOALS, Verdict, judge
from .link import LimitedLink, parse_rate
from .network import Loopback, Network
from .plot import check_plot, plot_cases, plot_curve
from .report import case_table, curve_table, goal_table, limit_lines, write_json
from .systems import System, all_systems, find_system
from .task import MODES, Mode
from .trial import Outcome, Settings
from .workloads.catalog import find_workload, workload_names

DEFAULT_WORKLOAD = "many-small"
DEFAULT_SYSTEMS = {
    "async": ("paramserve", "stock", "psstrategy", "ray"),
    "sync": ("paramserve", "stock", "ray", "ddp"),
}

Workloads = Annotated[
    list[str] | None,
    typer.Option("--workload", "-w", help="Model to train; may be repeated. Default: many-small."),
]
Systems = Annotated[
    list[str] | None,
    typer.Option("--system", "-s", help='System that trains; may be repeated; "all" for all.'),
]
Modes = Annotated[
    list[str] | None, typer.Option("--mode", "-m", help="async or sync; may be repeated.")
]
Workers = Annotated[int, typer.Option("--workers", min=1, max=64, help="Workers.")]
Ps = Annotated[int, typer.Option("--ps", min=1, max=64, help="Parameter servers.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="How often each is measured.")]
Secs = Annotated[float, typer.Option("--secs", min=0.1, help="Length of a measured window.")]
Steps = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Global steps of a window, in place of --secs."),
]
Warmup = Annotated[
    float, typer.Option("--warmup-secs", min=0.0, help="From the first steps to the window.")
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads of one operation; default: cores / workers."),
]
MaxWait = Annotated[
    float, typer.Option("--max-wait-secs", min=0.1, help="A longer wait counts as hung.")
]
Link = Annotated[
    str | None,
    typer.Option("--link", help="A host for each process, and this rate, such as 1gbit; root."),
]
Curve = Annotated[
    str | None, typer.Option("--curve", help="variables, workers or bytes: the cost over these.")
]
Goals = Annotated[
    bool, typer.Option("--goals", help="Compare the cases of the goals, and judge them.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all figures here.")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Draw them here, as PNG.")]
List = Annotated[bool, typer.Option("--list", help="Show workloads and systems, and end.")]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def bench(
    workload: Workloads = None,
    system: Systems = None,
    mode: Modes = None,
    workers: Workers = 2,
    ps: Ps = 1,
    rounds: Rounds = 3,
    secs: Secs = 4.0,
    steps: Steps = None,
    warmup_secs: Warmup = 1.5,
    threads: Threads = None,
    max_wait_secs: MaxWait = 90.0,
    link: Link = None,
    curve: Curve = None,
    goals: Goals = False,
    json: JsonFile = None,
    plot: PlotFile = None,
    list_all: List = False,
) -> None:
    """Measures training systems side by side on this machine: steps per second, and ratios.

    Systems take turns; each figure is the median of the rounds. A system that fails or hangs is
    shown as such.
    """
    console = Console(width=None if Console().is_terminal else 160)
    if list_all:
        _list(console)
        return
    with ending_with_exit_code(debug=False), _interrupted_by_sigterm():
        settings = Settings(
            workers=workers,
            ps=ps,
            secs=secs,
            steps=steps,
            warmup_secs=warmup_secs,
            threads=threads,
            max_wait_secs=max_wait_secs,
        )
        _check_outputs(json, plot)
        work = _plan(workload, system, mode, settings, curve, link, goals)
        comparison = Comparison.of_work(work)
        try:
            with _network(link) as network:
                compare(comparison, work, rounds, network, _reporter(Console(stderr=True)))
        finally:
            # Also the measurements of an interrupted run.
            if comparison.limits:
                verdicts = judge(comparison, link)
                _show(console, comparison, curve, verdicts if goals else [])
                if json is not None:
                    write_json(json, comparison, verdicts, link)
                if plot is not None:
                    _plot(comparison, curve, plot)


def main() -> None:
    """Runs the command line."""
    app()


def _plan(
    workloads: Sequence[str] | None,
    systems: Sequence[str] | None,
    modes: Sequence[str] | None,
    settings: Settings,
    curve: str | None,
    link: str | None,
    goals: bool,
) -> Work:
    """Returns the systems of each case.

    Raises:
        UsageError: A name is unknown, or options do not go together.
    """
    chosen_modes = [_mode(name) for name in modes or ()]
    for name in workloads or ():
        find_workload(name)
    if goals:
        if curve or systems:
            raise UsageError("--goals chooses the systems itself: leave out --system and --curve")
        return _plan_goals(workloads, chosen_modes, settings, link)
    cases: list[Case] = []
    for mode in chosen_modes or ["async"]:
        for name in workloads or [DEFAULT_WORKLOAD]:
            cases += (
                curve_cases(curve, name, mode, settings) if curve else [Case(name, mode, settings)]
            )
    return [(case, _systems(systems, case.mode)) for case in dict.fromkeys(cases)]


def _plan_goals(
    workloads: Sequence[str] | None, modes: Sequence[Mode], settings: Settings, link: str | None
) -> Work:
    names: dict[Case, dict[str, None]] = {}
    for goal in GOALS:
        if (
            goal.link == link
            and goal.workload in (workloads or [goal.workload])
            and goal.mode in (modes or [goal.mode])
        ):
            case = Case(goal.workload, goal.mode, goal.apply(settings))
            names.setdefault(case, {}).update({goal.ours: None, goal.peer: None})
    if not names:
        raise UsageError("--goals: no goal is about this workload, mode and link")
    return [(case, [find_system(name) for name in found]) for case, found in names.items()]


def _mode(name: str) -> Mode:
    for mode in MODES:
        if mode == name:
            return mode
    raise UsageError(f"--mode {name!r}: expected one of {', '.join(MODES)}")


def _systems(names: Sequence[str] | None, mode: Mode) -> list[System]:
    if names and "all" in names:
        return list(all_systems().values())
    return [find_system(name) for name in dict.fromkeys(names or DEFAULT_SYSTEMS[mode])]


def _check_outputs(json: Path | None, plot: Path | None) -> None:
    if plot is not None:
        check_plot(plot)
    for option, path in (("--json", json), ("--plot", plot)):
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{option} {str(path)!r}: there is no folder {path.parent}")


def _network(link: str | None) -> contextlib.AbstractContextManager[Network]:
    if link is None:
        return contextlib.nullcontext(Loopback())
    parse_rate(link)
    return LimitedLink(link)


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM end the command like Ctrl-C: with everything cleaned up."""

    def interrupt(signum: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reporter(console: Console) -> Report:
    def report(title: str, outcome: Outcome) -> None:
        rate = outcome.steps_per_sec
        figure = outcome.detail if rate is None else f"{rate:.4g} steps/s"
        console.print(
            f"{title}: {outcome.status} {figure}", highlight=False, markup=False, soft_wrap=True
        )

    return report


def _show(
    console: Console, comparison: Comparison, curve: str | None, verdicts: Sequence[Verdict]
) -> None:
    if curve:
        console.print(curve_table(comparison, AXES[curve]))
    else:
        for case in comparison.cases():
            console.print(case_table(comparison, case))
    for line in limit_lines(comparison):
        console.print(line, highlight=False)
    if verdicts:
        console.print(goal_table(verdicts))


def _plot(comparison: Comparison, curve: str | None, path: Path) -> None:
    if curve:
        plot_curve(comparison, AXES[curve], path)
    else:
        plot_cases(comparison, path)


def _list(console: Console) -> None:
    for name in workload_names():
        console.print(f"{name:24}{find_workload(name).about}", highlight=False)
    console.print(f"{'variables-N':24}N variables: layers of 64x64 and 64", highlight=False)
    many = "16 variables of N MiB in all, next to no arithmetic"
    console.print(f"{'mebibytes-N':24}{many}", highlight=False)
    console.print()
    for system in all_systems().values():
        console.print(f"{system.name:24}{system.about}", highlight=False)
