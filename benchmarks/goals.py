"""The performance goals of this library, and their check against a comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .comparison import Case, Comparison
from .task import Mode
from .trial import Settings


@dataclass(frozen=True)
class Goal:
    """A ratio of medians that is wanted, with one parameter server.

    Attributes:
        workload: Name of the workload.
        mode: "async" or "sync".
        ours: Name of our system.
        peer: Name of the other one.
        at_least: The ratio of steps per second, ours to theirs.
        workers: Number of workers.
        link: Rate of the link between hosts; None for loopback.
    """

    workload: str
    mode: Mode
    ours: str
    peer: str
    at_least: float
    workers: int = 2
    link: str | None = None

    def apply(self, settings: Settings) -> Settings:
        """Returns the settings with the goal's cluster."""
        return replace(settings, workers=self.workers, ps=1)


GOALS = (
    Goal("many-small", "async", "paramserve", "stock", 4.0),
    Goal("many-small", "async", "paramserve", "psstrategy", 5.0),
    Goal("many-small", "async", "paramserve", "ray", 4.0),
    Goal("many-small", "sync", "paramserve", "stock", 5.0),
    Goal("many-small", "sync", "paramserve", "ddp", 1.0),
    Goal("tables", "async", "paramserve", "stock", 3.0),
    Goal("resnet50", "async", "paramserve", "stock", 1.5),
    Goal("wide", "async", "paramserve", "stock", 1.0),
    Goal("wide", "async", "paramserve-bf16", "stock", 1.6),
    Goal("wide", "sync", "paramserve-colocated", "ddp", 1.0),
    Goal("pull-push", "async", "paramserve", "tcp", 0.7, workers=1),
    Goal("resnet50", "async", "paramserve", "tcp-duplex", 0.85, link="1gbit"),
)


@dataclass(frozen=True)
class Verdict:
    """A goal beside its measurement.

    Attributes:
        goal: The goal.
        ratio: The measured ratio; None if one of the two has no figure.
    """

    goal: Goal
    ratio: float | None

    @property
    def reached(self) -> bool:
        """True if there is a ratio and it is large enough."""
        return self.ratio is not None and self.ratio >= self.goal.at_least


def judge(comparison: Comparison, link: str | None) -> list[Verdict]:
    """Judges the goals that a comparison has figures for.

    Args:
        comparison: The measurements.
        link: The link it was measured over; None for loopback.
    """
    verdicts = []
    for goal in GOALS:
        for case in comparison.cases():
            measured = {each.system for each in comparison.of_case(case)}
            if goal.link == link and _is_about(goal, case) and {goal.ours, goal.peer} <= measured:
                verdicts.append(Verdict(goal, comparison.ratio(case, goal.ours, goal.peer)))
    return verdicts


def _is_about(goal: Goal, case: Case) -> bool:
    same_work = (case.workload, case.mode) == (goal.workload, goal.mode)
    return same_work and goal.apply(case.settings) == case.settings
