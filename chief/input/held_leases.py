"""Leases that have not ended, and their holders.

Pure bookkeeping without a lock: the ledger that owns them uses them in one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...cluster.spec import Task
from .leases import Grant


@dataclass(frozen=True)
class Held:
    """A lease and its holder.

    Attributes:
        grant: The lease.
        task: Its holder.
        incarnation: Which life of the task.
    """

    grant: Grant
    task: Task
    incarnation: str


class HeldLeases:
    """The leases that tasks hold now.

    Args:
        clock: Seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: dict[int, Held] = {}
        self._adopt_until = -float("inf")

    def __len__(self) -> int:
        """Returns the number of leases."""
        return len(self._held)

    def add(self, grant: Grant, task: Task, incarnation: str) -> None:
        """Adds a lease; see `Held`."""
        self._held[grant.lease] = Held(grant, task, incarnation)

    def take(self, lease: int) -> Held:
        """Removes a lease by its number, and returns it."""
        return self._held.pop(lease)

    def void(self, adopt_secs: float) -> None:
        """Forgets all leases; for so many seconds, tasks may come forward with theirs."""
        self._held.clear()
        self._adopt_until = self._clock() + adopt_secs

    @property
    def is_adopting(self) -> bool:
        """True while tasks may come forward with leases of an earlier chief."""
        return self._clock() < self._adopt_until

    @property
    def holders(self) -> set[tuple[Task, str]]:
        """The tasks that hold a lease, with their incarnations."""
        return {(held.task, held.incarnation) for held in self._held.values()}

    def of(self, task: Task) -> list[Held]:
        """Returns the leases of a task, of any incarnation."""
        return [held for held in self._held.values() if held.task == task]

    def owns(self, task: Task, incarnation: str, grant: Grant) -> bool:
        """Returns whether a lease is that of a task in this incarnation."""
        held = self._held.get(grant.lease)
        return held is not None and (held.task, held.incarnation) == (task, incarnation)
