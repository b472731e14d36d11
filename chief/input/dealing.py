"""The choice of a task's next shard.

Pure bookkeeping without a lock: the ledger that owns a dealer uses it in one thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ...cluster.spec import Task
from .failures import Failures
from .held_leases import HeldLeases
from .leases import Grant, Readers
from .shard_table import ShardTable


class ShardDealer:
    """Chooses shards and batches, and numbers their leases.

    Args:
        held: The leases that tasks hold now.
        failures: The failures of shards so far.
        readers: The tasks that ask.
        first_lease: Number of the first lease.
    """

    def __init__(
        self, held: HeldLeases, failures: Failures, readers: Readers, first_lease: int
    ) -> None:
        self._held = held
        self._failures = failures
        self._readers = readers
        self._numbers = itertools.count(first_lease)
        # Shards whose batches wait for others to complete a step: the epoch, and the batches.
        self._fills: dict[int, tuple[int, Sequence[int]]] = {}

    def clear(self) -> None:
        """Forgets which batches wait."""
        self._fills.clear()

    def note_waiting(self, shard: int, epoch: int, batches: Sequence[int]) -> None:
        """Notes batches that wait for others to make up a step."""
        self._fills[shard] = epoch, batches

    def deal(self, table: ShardTable, task: Task) -> Grant | None:
        """Makes a lease for a task; None if there is no shard for it now.

        Args:
            table: The shards.
            task: The task that asks.
        """
        if self._held.is_adopting or (choice := self._choose(table, task)) is None:
            return None
        shard, epoch = choice
        of_epoch, wait = self._fills.pop(shard, (epoch, ()))
        missing = table.missing(shard, epoch)
        batches = [batch for batch in missing if of_epoch != epoch or batch not in wait]
        fills = bool(missing) and not batches
        if fills or self._failures.is_troubled(shard):
            # One by one, so that the failing batch is known, and no other is set aside with it; and
            # no more than needed is read again.
            batches = (batches or missing)[:1]
        return Grant(next(self._numbers), shard, epoch, tuple(batches), fills)

    def _choose(self, table: ShardTable, task: Task) -> tuple[int, int] | None:
        """Chooses a shard for a task, and its epoch.

        A failing shard is read alone: a worker that it ends takes no other shard with it.
        """
        reads = [held.grant.shard for held in self._held.of(task)]
        if any(self._failures.is_troubled(shard) for shard in reads):
            return None
        without = self._failures.troubled if reads else []
        if not self._readers.is_only(task):
            without = [*without, *self._failures.kept_from(task)]
        return table.find_free(without=without)
