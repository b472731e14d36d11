"""`measure`: one chief under a number of simulated tasks."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import ParamserveError, WaitTimeout
from .chief import MeasuredChief
from .simulation import Seen, Simulation

_LOOK_SECS = 0.5
_REAL_SERVERS = 2


@dataclass(frozen=True)
class Settings:
    """The conditions that all points share.

    Attributes:
        ps: Simulated parameter servers, all spares; at most as many as there are workers.
        heartbeat_secs: Seconds between two heartbeats of a task.
        lease_secs: Seconds after which a silent task is lost.
        secs: Length of the measured window.
        processes: Processes that share the simulated tasks.
        max_wait_secs: Bound of each wait.
    """

    ps: int = 1000
    heartbeat_secs: float = 5.0
    lease_secs: float = 20.0
    secs: float = 30.0
    processes: int = 4
    max_wait_secs: float = 120.0


@dataclass(frozen=True)
class Figures:
    """The outcome at one point; a time is None where not all tasks were in the job.

    Attributes:
        workers: Simulated workers.
        ps: Simulated parameter servers.
        registered: Simulated tasks that came into the job.
        held: Those that are up at the end of the window, as the chief says.
        lost: Live tasks that the chief counted as lost.
        register_secs: Until all workers had registered, up to 1,000 of them at once.
        answers: Heartbeats answered in the window.
        unanswered: Heartbeats without an answer in time.
        p50_secs: Median of the time to a heartbeat's answer.
        p99_secs: 99th percentile; infinite if more heartbeats stayed unanswered.
        lag_p99_secs: 99th percentile of the delay of the simulation's own event loops, which is
            a part of the times above.
        chief_cores: Processor seconds of the chief in a second of the window.
        memory_bytes: Memory of the chief that came with the tasks.
        heard_secs: From the loss of a parameter server until all workers knew.
        ready_secs: From the same moment until all workers had the next view.
    """

    workers: int
    ps: int
    registered: int
    held: int
    lost: int
    register_secs: float
    answers: int
    unanswered: int
    p50_secs: float
    p99_secs: float
    lag_p99_secs: float
    chief_cores: float
    memory_bytes: int
    heard_secs: float | None
    ready_secs: float | None

    @property
    def tasks(self) -> int:
        """All simulated tasks."""
        return self.workers + self.ps

    @property
    def all_held(self) -> bool:
        """True if every task joined the job, and stayed."""
        return self.held == self.tasks and not self.lost

    @property
    def bytes_per_thousand(self) -> float:
        """Memory of the chief for 1,000 tasks."""
        return self.memory_bytes * 1000 / self.tasks


def measure(workers: int, settings: Settings) -> Figures:
    """Runs a chief under so many workers, through a window and the loss of a parameter server."""
    ps = min(settings.ps, workers)
    with (
        MeasuredChief(
            settings.heartbeat_secs, settings.lease_secs, settings.max_wait_secs
        ) as chief,
        Simulation(chief.address, settings.processes, chief.token) as tasks,
    ):
        memory = chief.memory_bytes()
        spares = tasks.register("ps", ps, settings.max_wait_secs)
        registered = tasks.register("worker", workers, settings.max_wait_secs)
        time.sleep(2 * settings.heartbeat_secs)
        tasks.take()
        cpu, began = chief.cpu_secs(), time.monotonic()
        time.sleep(settings.secs)
        cores = (chief.cpu_secs() - cpu) / (time.monotonic() - began)
        seen, memory = tasks.take(), chief.memory_bytes() - memory
        states: Counter[str] = Counter()
        heard, ready = None, None
        with contextlib.suppress(ParamserveError):  # It does not answer: none is held.
            for total in chief.status().totals:
                states[total.state] += total.count
            heard, ready = _lose_server(chief, tasks, registered.tasks, settings.max_wait_secs)
        return Figures(
            workers=workers,
            ps=ps,
            registered=spares.tasks + registered.tasks,
            held=max(0, states["up"] + states["spare"] - _REAL_SERVERS),
            lost=max(states["lost"], tasks.take().lost),
            register_secs=registered.secs,
            answers=len(seen.answer_secs),
            unanswered=seen.unanswered,
            p50_secs=_percentile(seen, 0.5),
            p99_secs=_percentile(seen, 0.99),
            lag_p99_secs=_of_sorted(seen.lag_secs, 0.99),
            chief_cores=cores,
            memory_bytes=memory,
            heard_secs=heard,
            ready_secs=ready,
        )


def _lose_server(
    chief: MeasuredChief, tasks: Simulation, workers: int, max_wait_secs: float
) -> tuple[float | None, float | None]:
    """Returns the seconds from the loss of a server to the news, and to the next view."""
    generation, told = chief.lose_server()
    deadline = told + max_wait_secs
    while True:
        time.sleep(_LOOK_SECS)
        seen = tasks.take()
        heard = _since(told, seen.over, generation, workers)
        ready = _since(told, seen.ready, generation + 1, workers)
        if ready is not None or time.monotonic() > deadline:
            return heard, ready


def _since(
    told: float, times: Mapping[int, Sequence[float]], generation: int, workers: int
) -> float | None:
    """Returns the seconds until the last of all workers; None if one is missing."""
    noted = times.get(generation, ())
    return max(noted) - told if len(noted) >= workers else None


def _percentile(seen: Seen, fraction: float) -> float:
    """Returns a percentile of all heartbeats; those without an answer took longest."""
    return _of_sorted([*seen.answer_secs, *[math.inf] * seen.unanswered], fraction)


def _of_sorted(ordered: Sequence[float], fraction: float) -> float:
    if not ordered:
        raise WaitTimeout("nothing was measured: is --secs longer than a few heartbeats?")
    return ordered[math.ceil(len(ordered) * fraction) - 1]
