"""Figures of a job: progress and rates, and its interruptions by losses and moves."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..protos import membership_pb2 as pb

WINDOW_SECS = 5.0
# Averages over thousands of workers are made for a part of the time at most: one divided by this.
_AVERAGE_RATIO = 20.0


@dataclass(frozen=True)
class Snapshot:
    """The newest figures.

    Attributes:
        global_step: Updates of the parameters.
        examples: Examples applied.
        steps_per_second: Global steps per second over the last seconds.
        examples_per_second: Applied examples per second over the last seconds.
        loss: Newest loss, averaged over the workers that reported one; None before the first.
        metrics: The model's own metrics, averaged likewise.
    """

    global_step: int = 0
    examples: int = 0
    steps_per_second: float = 0.0
    examples_per_second: float = 0.0
    loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


class Progress:
    """Turns counts read from the parameter servers into rates."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int, int]] = deque()
        self._lock = threading.Lock()
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None
        self._average: tuple[float | None, dict[str, float]] = None, {}
        self._average_at = -math.inf
        self.snapshot = Snapshot()

    def update(
        self, now: float, global_step: int, examples: int, reports: Iterable[pb.WorkerReport]
    ) -> Snapshot:
        """Takes new counts in.

        Args:
            now: Seconds on a monotonic clock.
            global_step: As read from the parameter servers.
            examples: As read from the parameter servers.
            reports: The newest report of each worker that is up, or was up last.
        """
        with self._lock:
            if self.snapshot.global_step > global_step:
                self._counts.clear()  # Restored from an older checkpoint.
            self._note_span(now, global_step)
            self._counts.append((now, global_step, examples))
            while len(self._counts) > 2 and now - self._counts[1][0] > WINDOW_SECS:
                self._counts.popleft()
            then, step_then, examples_then = self._counts[0]
            span = max(now - then, 1e-9)
            if now >= self._average_at:
                began = time.monotonic()
                self._average = _average(reports)
                self._average_at = now + _AVERAGE_RATIO * (time.monotonic() - began)
            loss, metrics = self._average
            self.snapshot = Snapshot(
                global_step=global_step,
                examples=examples,
                steps_per_second=(global_step - step_then) / span if now > then else 0.0,
                examples_per_second=(examples - examples_then) / span if now > then else 0.0,
                loss=loss if loss is not None else self.snapshot.loss,
                metrics=metrics or self.snapshot.metrics,
            )
            return self.snapshot

    def trained(self) -> tuple[float, int]:
        """Returns seconds and global steps from just before the first step to the newest one."""
        if self._first is None or self._last is None:
            return 0.0, 0
        return self._last[0] - self._first[0], self._last[1] - self._first[1]

    def _note_span(self, now: float, global_step: int) -> None:
        if self._last is None or self._last[1] == global_step:
            if self._first is None or self._first[1] == global_step:
                self._first = self._last = (now, global_step)
        else:
            self._last = (now, global_step)


def _average(reports: Iterable[pb.WorkerReport]) -> tuple[float | None, dict[str, float]]:
    with_loss = [r for r in reports if r.HasField("loss")]
    if not with_loss:
        return None, {}
    names = {name for r in with_loss for name in r.metrics}
    metrics = {n: _mean([r.metrics[n] for r in with_loss if n in r.metrics]) for n in sorted(names)}
    return _mean([r.loss for r in with_loss]), metrics


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


class Interruptions:
    """The interruptions of one run of a job, for its status and metrics.

    Args:
        clock: Seconds from any origin.

    Attributes:
        recoveries: Losses of parameter servers that this run has recovered from.
        recovery_secs: How long the newest recovery took, from the loss to the next step.
        recovered_step: The global step that it went back to.
        resizes: Changes of the number of parameter servers in this run.
        resize_secs: How long steps stood still for the newest one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lost_at: float | None = None
        self._moved_at: float | None = None
        self.recoveries = 0
        self.recovery_secs = 0.0
        self.recovered_step = 0
        self.resizes = 0
        self.resize_secs = 0.0

    @property
    def is_awaiting_step(self) -> bool:
        """True while the first step after a loss or a move is awaited."""
        return self._lost_at is not None or self._moved_at is not None

    def begin_recovery(self) -> None:
        """Notes that a server was missed; a recovery under way continues."""
        if self._lost_at is None:
            self._lost_at = self._clock()

    def begin_move(self, began: float) -> None:
        """Notes since when steps stand still for a move to other servers, by the clock."""
        self._moved_at = began

    def end_recovery(self, step: int) -> bool:
        """Counts a recovery, after which steps are made again; false if there was none.

        Args:
            step: The global step that it went back to.
        """
        if self._lost_at is None:
            return False
        self.recovery_secs, self.recovered_step = self._clock() - self._lost_at, step
        self._lost_at = None
        self.recoveries += 1
        return True

    def end_move(self) -> bool:
        """Counts a move, after which steps are made again; false if there was none."""
        if self._moved_at is None:
            return False
        self.resize_secs, self._moved_at = self._clock() - self._moved_at, None
        self.resizes += 1
        return True
