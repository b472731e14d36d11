"""The count of each batch of the input, as last read from the parameter servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...model.input.shard_plan import InputPlan

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
