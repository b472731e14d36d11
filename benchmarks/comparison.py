"""`Comparison`: several systems on the same work, in turn, several times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from .limits import measure_limits
from .network import Network
from .processes import Processes
from .systems import System
from .task import Mode
from .trial import Outcome, Settings, Trial
from .workloads.catalog import find_workload

Report = Callable[[str, Outcome], None]


@dataclass(frozen=True)
class Case:
    """The conditions of a measurement, the same for all systems.

    Attributes:
        workload: Its name.
        mode: "async" or "sync".
        settings: How it is measured.
        point: Where it lies on a curve, or None.
    """

    workload: str
    mode: Mode
    settings: Settings
    point: int | None = None

    @property
    def title(self) -> str:
        """For people."""
        workers, ps = self.settings.workers, self.settings.ps
        return f"{self.workload}, {self.mode}, {workers} workers, {ps} ps"


Work = Sequence[tuple[Case, Sequence[System]]]


@dataclass
class Measurement:
    """One system on one case.

    Attributes:
        case: The case.
        system: Name of the system.
        outcomes: One a round.
    """

    case: Case
    system: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Global steps per second of the rounds that were measured."""
        return [each.steps_per_sec for each in self.outcomes if each.steps_per_sec is not None]

    @property
    def steps_per_sec(self) -> float | None:
        """Median over the rounds that were measured; None if none was."""
        return median(self.rates) if self.rates else None

    def median_of(self, value: Callable[[Outcome], float | None]) -> float | None:
        """Returns the median of another figure."""
        values = [found for each in self.outcomes if (found := value(each)) is not None]
        return median(values) if values else None

    @property
    def counts(self) -> dict[str, float]:
        """The transfers counted in one step; empty if nothing was counted."""
        return next((dict(each.counts) for each in self.outcomes if each.counts), {})

    @property
    def trouble(self) -> str:
        """The reasons of failed rounds, and their number; empty if none failed."""
        if not self.outcomes:
            return "not measured"
        wrong = [each for each in self.outcomes if each.status != "ok"]
        if not wrong:
            return ""
        if wrong[0].status == "skipped":
            return f"skipped: {wrong[0].detail}"
        often = f"{len(wrong)} of {len(self.outcomes)} rounds "
        return f"{often}{wrong[0].status}: {wrong[0].detail}"


@dataclass
class Comparison:
    """The results of all systems on all cases.

    Attributes:
        measurements: In the order of cases and systems.
        limits: Bytes per second of each limit of the machine, one value a round.
    """

    measurements: list[Measurement] = field(default_factory=list)
    limits: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of_work(cls, work: Work) -> Comparison:
        """Makes a comparison without measurements."""
        return cls([Measurement(case, each.name) for case, systems in work for each in systems])

    def find(self, case: Case, system: str) -> Measurement:
        """Returns the measurement of one system on one case."""
        return next(each for each in self.of_case(case) if each.system == system)

    def of_case(self, case: Case) -> list[Measurement]:
        """Returns all systems on one case."""
        return [each for each in self.measurements if each.case == case]

    def cases(self) -> list[Case]:
        """Returns each case once."""
        return list(dict.fromkeys(each.case for each in self.measurements))

    def ratio(self, case: Case, ours: str, peer: str) -> float | None:
        """Returns our median divided by the peer's, or None if one of them has none."""
        rates = {each.system: each.steps_per_sec for each in self.of_case(case)}
        mine, theirs = rates.get(ours), rates.get(peer)
        return None if mine is None or theirs is None else mine / theirs


def compare(
    comparison: Comparison,
    work: Work,
    rounds: int,
    network: Network,
    report: Report = lambda title, outcome: None,
) -> None:
    """Measures; systems take turns, and each round begins with another one.

    Args:
        comparison: Takes each result as it comes, so that an interrupted run has shown something.
        work: The systems of each case.
        rounds: How often each is measured.
        network: Where its processes live.
        report: Called after each trial.
    """
    with Processes() as processes:
        for number in range(rounds):
            for name, limit in measure_limits().items():
                comparison.limits.setdefault(name, []).append(limit)
            for case, system in _round(work, number):
                count = number == rounds - 1
                outcome = _try(case, system, processes, network, count)
                if number == 0 or outcome.status != "skipped":
                    comparison.find(case, system.name).outcomes.append(outcome)
                    report(f"{number + 1}/{rounds} {case.title}: {system.name}", outcome)


def _round(work: Work, number: int) -> Iterator[tuple[Case, System]]:
    for case, systems in work:
        first = number % len(systems)
        for system in (*systems[first:], *systems[:first]):
            yield case, system


def _try(
    case: Case, system: System, processes: Processes, network: Network, count: bool
) -> Outcome:
    workload = find_workload(case.workload)
    reason = system.why_not(workload, case.mode, case.settings.ps, network.single_host)
    if reason is not None:
        return Outcome("skipped", reason)
    trial = Trial(system, case.workload, case.mode, case.settings, processes, network, count=count)
    return trial.run()
