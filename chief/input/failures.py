"""Failures of the input: their counts, and the batches set aside because of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...cluster.spec import Task
from ...errors import JobFailed, UsageError
from ...model.input.shard_plan import InputPlan

log = logging.getLogger(__name__)

# Failures at the same place after which a batch is set aside.
MAX_FAILURES = 3


@dataclass(frozen=True)
class SetAside:
    """Batches that are not read any more, or not in one epoch.

    Attributes:
        shard: Their shard.
        batches: Their numbers within it.
        records: Number of their records.
        epoch: The epoch that they are left out of.
        for_good: True if later epochs leave them out too, as these hold the same records there.
        what: Description of the records, for people.
        error: The error, for people.
        file: Their file; empty without files.
        first: The lowest number of a record, within the file or, without files, the dataset.
        last: The highest number.
    """

    shard: int
    batches: tuple[int, ...]
    records: int
    epoch: int
    for_good: bool
    what: str
    error: str
    file: str = ""
    first: int = 0
    last: int = 0

    def describe(self) -> str:
        """Describes them in one line, for people."""
        return f"{self.what}: {self.error}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields of `SetAside` in status.proto."""
        names = ("file", "first", "last", "records", "epoch", "for_good")
        return {**{name: getattr(self, name) for name in names}, "reason": self.error}


@dataclass(frozen=True)
class ShardFailure:
    """One reading of a shard that failed.

    Attributes:
        shard: The shard.
        epoch: The epoch for which it was read.
        batches: Its batches that failed, by their numbers within it.
        error: The error, for people.
        reader: The task that read it.
    """

    shard: int
    epoch: int
    batches: tuple[int, ...]
    error: str
    reader: Task


@dataclass
class _Trouble:
    """A failing shard: the place, the count there, the reader, and whether it is read alone."""

    batch: int
    times: int
    alone: bool
    readers: set[Task]


class Failures:
    """Counter of failures by shard, which sets aside batches that fail again and again.

    A worker may be killed for any reason in the middle of a shard, and it may have read ahead of
    the applied batches. So failures count together only if they are at the same batch. A shard that
    has failed twice there is read alone and batch by batch, so that the next failure is a proof. It
    is no proof as long as only one of several workers has tried: that one may be short of memory.

    Args:
        max_failures: Failures of one batch after which it is set aside; at least 3.
        max_bad_records: Records that may be set aside; None: any number.

    Attributes:
        set_aside: The batches set aside, oldest first.

    Raises:
        UsageError: `max_failures` is less.
    """

    def __init__(
        self, max_bad_records: int | None = None, max_failures: int = MAX_FAILURES
    ) -> None:
        if max_failures < 3:
            raise UsageError(
                f"max_failures={max_failures}: expected at least 3, as two of them do not tell "
                "which batch it was"
            )
        self._max_failures = max_failures
        self._max_bad_records = max_bad_records
        self._troubles: dict[int, _Trouble] = {}
        self._aside: dict[int, set[int]] = {}
        self.set_aside: tuple[SetAside, ...] = ()
        self._excess: SetAside | None = None

    @property
    def records(self) -> int:
        """Records that are set aside."""
        return sum(each.records for each in self.set_aside)

    def note(
        self, plan: InputPlan, failure: ShardFailure, *, is_only_reader: bool = True
    ) -> SetAside | None:
        """Counts a failure of a shard; at the last one, these batches are set aside, if they may.

        Args:
            plan: The dataset.
            failure: The failure.
            is_only_reader: Whether no other task could read the shard.
        """
        shard, epoch, failed = failure.shard, failure.epoch, failure.batches
        before = self._troubles.get(shard)
        is_same = before is not None and before.batch == failed[0]
        times = before.times + 1 if before is not None and is_same else 1
        alone = times > 1 or (before is not None and before.alone)
        readers = {failure.reader} | (before.readers if before is not None and is_same else set())
        self._troubles[shard] = _Trouble(failed[0], times, alone, readers)
        what = plan.describe(shard, epoch, failed)
        log.warning("%s: failure %d of %d: %s", what, times, self._max_failures, failure.error)
        if times < self._max_failures or (len(readers) == 1 and not is_only_reader):
            return None
        starts = plan.batch_size * np.array(failed)
        records = int(np.minimum(plan.batch_size, plan.sizes[shard] - starts).sum())
        reason = f"failed {times} times, the last time because {failure.error}"
        aside = SetAside(
            *(shard, failed, records, epoch, plan.is_fixed, what, reason),
            *plan.span(shard, epoch, failed),
        )
        if self._max_bad_records is not None and self.records + records > self._max_bad_records:
            # A run that resumes from here, with the file mended, is to read it.
            self._excess = aside
            return None
        until = "any more" if aside.for_good else f"in epoch {epoch + 1}"
        log.error("set aside, and not read %s: %s", until, aside.describe())
        self._put_aside(aside)
        return aside

    def check(self) -> None:
        """Raises JobFailed if more records fail than may be set aside."""
        if (aside := self._excess) is not None:
            total = f", {self.records + aside.records} in all" if self.records else ""
            raise JobFailed(
                f"--max-bad-records {self._max_bad_records}: {aside.what} ({aside.records}{total}) "
                f"cannot be trained on: {aside.error}. Mend the input or allow more bad records: "
                "the same command resumes from the checkpoint"
            )

    def forget(self, shard: int) -> None:
        """Resets the count of a shard that was read to its end."""
        self._troubles.pop(shard, None)

    @property
    def troubled(self) -> list[int]:
        """Shards that are to be read alone, until one is read to its end."""
        return [shard for shard, trouble in self._troubles.items() if trouble.alone]

    def kept_from(self, reader: Task) -> list[int]:
        """Returns shards for another task to try: the only reader so far failed too often."""
        return [
            shard
            for shard, trouble in self._troubles.items()
            if trouble.readers == {reader} and trouble.times >= self._max_failures - 1
        ]

    def is_troubled(self, shard: int) -> bool:
        """Returns whether a shard has failures."""
        return shard in self.troubled

    @property
    def shards_aside(self) -> list[int]:
        """Shards with batches that are set aside permanently."""
        return list(self._aside)

    def batches_aside(self, shard: int) -> set[int]:
        """Returns batches of a shard that are set aside permanently, by their numbers within it."""
        return self._aside.get(shard, set())

    def snapshot(self) -> list[dict[str, Any]]:
        """Returns the batches set aside, as JSON-able dicts."""
        return [{**asdict(each), "batches": list(each.batches)} for each in self.set_aside]

    def restore(self, saved: Sequence[Mapping[str, Any]]) -> list[SetAside]:
        """Adds the batches of a `snapshot` to those known here.

        Returns:
            Batches known only here: they were set aside later than that.

        Raises:
            UsageError: More would be set aside than allowed.
        """
        before = [SetAside(**{**each, "batches": tuple(each["batches"])}) for each in saved]
        for each in before:
            if each not in self.set_aside:
                self._put_aside(each)
        if self._max_bad_records is not None and self.records > self._max_bad_records:
            raise UsageError(
                f"an earlier run has set aside {self.records} records of the input, more than "
                f"--max-bad-records {self._max_bad_records}: give that many, or another --logdir; "
                f"the last are {self.set_aside[-1].describe()}"
            )
        return [each for each in self.set_aside if each not in before]

    def _put_aside(self, aside: SetAside) -> None:
        if aside.for_good:
            self._aside.setdefault(aside.shard, set()).update(aside.batches)
        self.set_aside = (*self.set_aside, aside)
