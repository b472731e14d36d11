"""The shards of a declared dataset: done ones, leased ones, and their missing batches.

Pure bookkeeping without a lock: the ledger that owns a table uses it in one thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import UsageError
from ...model.input.shard_plan import InputPlan
from .failures import Failures, SetAside

# The epochs done of a shard that is not read any more.
WITHOUT_END = 2**31 - 1


class BatchCounts:
    """The counts of a dataset's batches, corrected by facts that the parameter servers cannot know.

    The correction is the surplus: how often a batch was applied too often. It is negative for a
    batch that is not to be applied in one epoch.

    Args:
        plan: The dataset.
    """

    def __init__(self, plan: InputPlan) -> None:
        self._plan = plan
        self._applied = np.zeros(plan.num_batches, np.int64)
        self._surplus = np.zeros(plan.num_batches, np.int64)

    def take(self, applied: Any) -> None:
        """Takes over the counts of the parameter servers; shape [batches].

        Raises:
            ValueError: The counts are those of another dataset.
        """
        counts = np.asarray(applied, np.int64)
        if counts.shape != self._applied.shape:
            raise ValueError(
                f"counts of {counts.size} batches, expected those of {self._applied.size}"
            )
        self._applied = counts.copy()

    def snapshot(self) -> dict[str, int]:
        """Returns the surplus, by the batch's number."""
        return {str(batch): int(self._surplus[batch]) for batch in np.flatnonzero(self._surplus)}

    def restore(self, surplus: Mapping[str, int]) -> None:
        """Takes over a `snapshot`."""
        self._surplus[:] = 0
        for batch, times in surplus.items():
            self._surplus[int(batch)] = times

    def missing(self, shard: int, epoch: int, aside: set[int]) -> list[int]:
        """Returns the batches that a shard still lacks in an epoch, by their numbers within it.

        Args:
            shard: The shard.
            epoch: The epoch.
            aside: Batches that are set aside, by numbers within the shard.
        """
        short = np.flatnonzero(self._of(shard) <= epoch)
        return [int(each) for each in short if int(each) not in aside]

    def write_off(self, shard: int, epoch: int) -> int:
        """Writes off surplus counts before the next epoch; returns their number."""
        extra = np.maximum(self._of(shard) - (epoch + 1), 0)
        self._surplus[self._plan.batch_range(shard)] += extra
        return int(extra.sum())

    def excuse(self, shard: int, epoch: int, batches: Sequence[int]) -> None:
        """Counts batches of a shard as if they had been applied in an epoch, if it is their next.

        Args:
            shard: Which shard.
            epoch: Which epoch.
            batches: Numbers within the shard.
        """
        due = [each for each in batches if self._of(shard)[each] == epoch]
        self._surplus[self._plan.batch_range(shard)][due] -= 1

    def epochs_done(self, shard: int, aside: set[int]) -> int:
        """Returns the number of epochs in which a shard is done."""
        rest = np.delete(self._of(shard), list(aside)) if aside else self._of(shard)
        return int(rest.min()) if len(rest) else WITHOUT_END

    def all_epochs_done(self) -> Any:
        """Returns the same for every shard, if nothing is set aside; int64 of shape [shards]."""
        return np.minimum.reduceat(self._applied - self._surplus, self._plan.first_batches)

    def _of(self, shard: int) -> Any:
        where = self._plan.batch_range(shard)
        return self._applied[where] - self._surplus[where]


class ShardTable:
    """One row for each shard of a dataset.

    Args:
        plan: The dataset.
        failures: The failures of its batches.
        sync: True if gradients are aggregated: a worker that waits for the end of an epoch would
            keep the others from it.

    Attributes:
        plan: The dataset.
        busy: Whether each shard is leased, or its last updates are awaited; bool of [shards].
        done: Epochs of each shard that are done; int64 of shape [shards].
    """

    def __init__(self, plan: InputPlan, failures: Failures, *, sync: bool) -> None:
        self.plan = plan
        self._failures = failures
        self._sync = sync
        self._counts = BatchCounts(plan)
        self.busy = np.zeros(plan.num_shards, bool)
        self.done = np.zeros(plan.num_shards, np.int64)
        self._order: tuple[int, Any] = (-1, None)

    def take(self, applied: Any) -> None:
        """Takes over how often each batch was applied; shape [batches]."""
        self._counts.take(applied)

    def snapshot(self) -> dict[str, Any]:
        """Returns the state for `restore`, except the counts, as a JSON-able dict."""
        return {
            "dataset": self.plan.name,
            "digest": self.plan.digest,
            "surplus": self._counts.snapshot(),
            "set_aside": self._failures.snapshot(),
        }

    def restore(self, saved: Mapping[str, Any] | None, applied: Any) -> None:
        """Takes over the counts of a model; no shard is leased then.

        Args:
            saved: The `snapshot` of that point; None: there is none.
            applied: How often each batch has been applied; shape [batches].

        Raises:
            UsageError: See `ShardLedger.restore`.
        """
        saved = saved or {"digest": self.plan.digest, "surplus": {}, "set_aside": []}
        self._check_dataset(saved)
        self._counts.take(applied)
        self._counts.restore(saved["surplus"])
        for aside in self._failures.restore(saved["set_aside"]):
            self.excuse(aside)
        self.busy[:] = False
        self.done = self._counts.all_epochs_done()
        for shard in self._failures.shards_aside:
            self.recount(shard)

    def missing(self, shard: int, epoch: int) -> list[int]:
        """Returns the batches that a shard still lacks in an epoch, by numbers within it."""
        return self._counts.missing(shard, epoch, self._failures.batches_aside(shard))

    def is_due(self, shard: int, epoch: int) -> bool:
        """Returns whether such a shard exists, is not leased, and lacks that epoch next."""
        is_free = 0 <= shard < len(self.busy) and not self.busy[shard]
        return bool(is_free and self.done[shard] == epoch)

    def release(self, shard: int, epoch: int) -> int:
        """Ends the reading of a shard; returns how many of its batches were applied twice."""
        self.busy[shard] = False
        return self._counts.write_off(shard, epoch)

    def excuse(self, aside: SetAside) -> None:
        """Lets an epoch be done without the batches that are set aside in it alone."""
        if not aside.for_good:
            self._counts.excuse(aside.shard, aside.epoch, aside.batches)

    def recount(self, shard: int) -> None:
        """Finds how many epochs of a shard are done."""
        self.done[shard] = self._counts.epochs_done(shard, self._failures.batches_aside(shard))

    @property
    def is_exhausted(self) -> bool:
        """True if every shard of every epoch is done or set aside."""
        return int(self.done.min()) >= self._last_epoch

    @property
    def epoch(self) -> int:
        """The oldest epoch that is not done; the last one when all are."""
        return min(int(self.done.min()), self._last_epoch - 1)

    @property
    def epochs(self) -> range:
        """The epochs that shards are dealt of, the first ones first."""
        now = int(self.done.min())
        ahead = int(self.done[self.done < WITHOUT_END].max(initial=now)) if self._sync else now
        return range(now, min(ahead + 2, self._last_epoch))

    @property
    def has_free(self) -> bool:
        """True if a shard is left to be dealt."""
        return bool((~self.busy & (self.done < self.epochs.stop)).any())

    def find_free(self, *, without: Iterable[int] = ()) -> tuple[int, int] | None:
        """Finds a shard that can be dealt, and its epoch: the one under way, or the next one.

        A shard is read in one epoch after the other, so a shard for the next epoch is done in this
        one.

        Args:
            without: Shards to leave out.
        """
        taken = self.busy.copy()
        taken[list(without)] = True
        for epoch in self.epochs:
            order = self._ordered(epoch)
            free = (self.done[order] == epoch) & ~taken[order]
            if free.any():
                return int(order[int(free.argmax())]), epoch
        return None

    @property
    def _last_epoch(self) -> int:
        return WITHOUT_END if self.plan.epochs is None else self.plan.epochs

    def _ordered(self, epoch: int) -> Any:
        if self._order[0] != epoch:
            self._order = (epoch, self.plan.order(epoch))
        return self._order[1]

    def _check_dataset(self, saved: Mapping[str, Any]) -> None:
        if saved["digest"] != self.plan.digest:
            raise UsageError(
                f"the checkpoint counts batches of dataset {saved['dataset']!r} as it was then: "
                f"{self.plan.name!r} has now other records, sizes, seed or files. Restore them, or "
                "give another --logdir"
            )
