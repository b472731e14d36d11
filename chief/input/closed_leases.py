"""Ended leases, kept until no more of their batches can be counted.

Pure bookkeeping without a lock: the ledger that owns them uses them in one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ...cluster.spec import Task
from .leases import Grant

# Sync mode: a gradient that is not seen waiting so often had the time to be counted, if it ever is.
SETTLE_LOOKS = 2


@dataclass
class Closed:
    """A lease that ended and whose last updates may still be counted.

    Attributes:
        grant: The lease.
        reader: Its former holder.
        at: Time of its end, by the ledger's clock.
        orderly: True if every step of it was done by then.
        error: The error, for people; empty if there was none.
        quiet: How often in a row no gradient of it was found waiting since then.
    """

    grant: Grant
    reader: Task
    at: float
    orderly: bool
    error: str
    quiet: int = 0


class ClosedLeases:
    """The leases that are to be compared with the model's counts.

    Args:
        sync: Whether gradients are aggregated, and may wait for the rest of their step.
        settle_secs: Seconds after a lease's end for which its updates may still come.
        clock: Seconds from any origin.
    """

    def __init__(self, *, sync: bool, settle_secs: float, clock: Callable[[], float]) -> None:
        self._sync = sync
        self._settle_secs = settle_secs
        self._clock = clock
        self._closed: dict[int, Closed] = {}

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of the leases."""
        return frozenset(self._closed)

    def of(self, numbers: Collection[int]) -> list[Closed]:
        """Returns those with given numbers, oldest first."""
        return [closed for number, closed in self._closed.items() if number in numbers]

    def add(self, grant: Grant, reader: Task, *, orderly: bool, error: str) -> None:
        """Adds a lease that ends now; see `Closed`."""
        self._closed[grant.lease] = Closed(grant, reader, self._clock(), orderly, error)

    def remove(self, closed: Closed) -> None:
        """Removes a settled lease."""
        del self._closed[closed.grant.lease]

    def clear(self) -> None:
        """Forgets all."""
        self._closed.clear()

    def has_waited(self, closed: Closed) -> bool:
        """Returns whether a lease ended so long ago that no update of it can still be under way."""
        return self._clock() - closed.at >= self._settle_secs

    def is_settled(self, closed: Closed) -> bool:
        """Returns whether the missing batches of a lease will not be counted any more."""
        # A step of the worker ends after its update was counted, or its gradient was pushed.
        is_over = closed.orderly or self.has_waited(closed)
        return is_over and (not self._sync or closed.quiet >= SETTLE_LOOKS)
