"""A worker's leases, and the batches of them that have not come to a step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ..model.input.shard_plan import InputPlan
from ..model.input.source import Lease
from ..protos import shards_pb2 as pb

# After so many seconds without a step, and so many times the longest step, a batch that has not
# come to a step will not come any more.
IDLE_SECS = 60.0
IDLE_STEPS = 10

# The error, for people, of batches that never came to a step.
LOST = "it was lost on the way to a step"


@dataclass
class _Open:
    """A lease that has not ended, and its batches that have not come to a step."""

    held: pb.HeldShard
    left: set[int]
    missed: int = 0
    error: str = ""


@dataclass(frozen=True)
class LeaseReport:
    """The leases at one moment, for the chief.

    Attributes:
        held: The leases that have not ended.
        finished: Ends of leases that the chief may not know.
        valid_from: Number of the first lease that was not returned unread.
    """

    held: Sequence[pb.HeldShard]
    finished: Sequence[pb.FinishedShard]
    valid_from: int


class OpenLeases:
    """The leases that have not ended, and the ends of others until the chief knows them.

    A lease ends when each of its batches has come to a step, or is known to have been lost on the
    way. Every method may be called from any thread.

    Args:
        on_finished: Called when a lease has ended.
        clock: Seconds from any origin.

    Attributes:
        must_discard: True if batches of returned leases are still on their way.
        valid_from: See `LeaseReport`.
    """

    def __init__(self, on_finished: Callable[[], None], clock: Callable[[], float]) -> None:
        self._on_finished = on_finished
        self._clock = clock
        self._lock = threading.RLock()
        self._open: dict[int, _Open] = {}
        self._finished: list[pb.FinishedShard] = []
        self._next_number = self.valid_from = 0
        self.must_discard = False
        self._progressed = clock()
        self._longest_step = 0.0

    def __len__(self) -> int:
        """Returns the number of leases that have not ended."""
        return len(self._open)

    def report(self) -> LeaseReport:
        """Returns the leases as the chief has to know them now."""
        with self._lock:
            held = [opened.held for opened in self._open.values()]
            return LeaseReport(held, list(self._finished), self.valid_from)

    def note_told(self, report: LeaseReport) -> None:
        """Records that the chief has taken a report."""
        told = {each.held.lease for each in report.finished}
        with self._lock:
            self._finished = [each for each in self._finished if each.held.lease not in told]

    def holds_any(self, leases: Collection[int]) -> bool:
        """Returns whether one of these leases, by the chief's numbers, has not ended."""
        with self._lock:
            return any(opened.held.lease in leases for opened in self._open.values())

    def take(self, plan: InputPlan, lease: pb.ShardLease, valid_from: int) -> Lease | None:
        """Adds a lease; returns None if all leases were returned since the request for it.

        Args:
            plan: The dataset.
            lease: The lease, as the chief dealt it.
            valid_from: That of the report with which the chief was asked.
        """
        held = lease.held
        first = int(plan.first_batches[held.shard])
        with self._lock:
            number = self._next_number
            self._next_number += 1
            self._open[number] = _Open(held, {first + batch for batch in lease.batches})
            if self.valid_from != valid_from:
                self._finish(number)
                return None
        return Lease(number, held.shard, held.epoch, tuple(lease.batches), lease.fills)

    def complete(self, positions: Sequence[Sequence[int]], step_secs: float = 0.0) -> None:
        """Records batches that came to a step, applied or not; see `LeasedInput.complete`."""
        with self._lock:
            self._progressed = self._clock()
            self._longest_step = max(self._longest_step, step_secs)
            for batch, _, number in positions:
                if number in self._open:
                    self._open[number].left.discard(batch)
                    if not self._open[number].left:
                        self._finish(number)
                # Batches come nearly in order: a batch two leases behind was lost on the way.
                for behind in [n for n in self._open if n <= number - 2]:
                    self._lose(behind)

    def miss(self, number: int, batches: Sequence[int], error: str) -> None:
        """Records batches of a lease that will not come to a step, and the reason."""
        with self._lock:
            if (opened := self._open.get(number)) is None:
                return
            opened.missed, opened.error = len(batches), error
            opened.left.difference_update(batches)
            if not opened.left:
                self._finish(number)

    def void(self) -> None:
        """Returns all leases, because a step of them may have been lost."""
        with self._lock:
            self.valid_from = self._next_number
            self.must_discard |= bool(self._open)
            for number in list(self._open):
                self._finish(number, broken_off=True)

    def discard(self, positions: Sequence[Sequence[int]]) -> None:
        """Discards batches; the first batches of valid leases end `must_discard`."""
        with self._lock:
            if all(number >= self.valid_from for _, _, number in positions):
                self.must_discard = False
                self.complete(positions)

    def lose_idle(self) -> None:
        """Ends leases whose batches cannot be on their way any more: the input waits for others."""
        patience = max(IDLE_SECS, IDLE_STEPS * self._longest_step)
        with self._lock:
            if self._clock() - self._progressed < patience:
                return
            for number in list(self._open):
                self._lose(number)

    def _lose(self, number: int) -> None:
        opened = self._open[number]
        opened.missed, opened.error = opened.missed + len(opened.left), opened.error or LOST
        self._finish(number, broken_off=True)

    def _finish(self, number: int, *, broken_off: bool = False) -> None:
        opened = self._open.pop(number)
        self._finished.append(
            pb.FinishedShard(
                held=opened.held, missed=opened.missed, error=opened.error, broken_off=broken_off
            )
        )
        self._on_finished()
