"""What of the input failed, how often, and what is therefore not read any more."""

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


@dataclass(frozen=True)
class SetAside:
    """Batches that are not read any more, or not in one epoch.

    Attributes:
        shard: Of which shard.
        batches: Their numbers within it.
        records: How many records they hold.
        epoch: The epoch that goes without them.
        for_good: Whether later ones do so too, as these hold the same records there.
        what: The records, for people.
        error: Why, for people.
        file: The file that they are in; empty without files.
        first: The lowest number of a record, within the file or, without files, the dataset.
        last: The highest.
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
        """One line for people."""
        return f"{self.what}: {self.error}"

    def to_dict(self) -> dict[str, Any]:
        """The fields of `SetAside` in status.proto."""
        names = ("file", "first", "last", "records", "epoch", "for_good")
        return {**{name: getattr(self, name) for name in names}, "reason": self.error}


@dataclass(frozen=True)
class ShardFailure:
    """One reading of a shard that failed.

    Attributes:
        shard: The shard.
        epoch: The epoch for which it was read.
        batches: Its batches that failed, by their numbers within it.
        error: Why, for people.
        reader: The task that read it.
    """

    shard: int
    epoch: int
    batches: tuple[int, ...]
    error: str
    reader: Task


@dataclass
class _Trouble:
    """A shard that failed: where, how often there, in whose hands, and whether it is read alone."""

    batch: int
    times: int
    alone: bool
    readers: set[Task]


class Failures:
    """Counts failures by shard, and sets aside what fails again and again.

    A worker may be killed for any reason in the middle of a shard, and it may have read ahead of
    what was applied. So failures count together only if they are at the same batch; and what has
    failed twice there is to be read alone and batch by batch, so that the next one is a proof.
    It is none as long as only one of several workers has tried: that one may be short of memory.

    Args:
        max_failures: Failures of one batch after which it is set aside; at least 3.
        max_bad_records: Records that may be set aside; None: any number.

    Attributes:
        set_aside: What is set aside, oldest first.

    Raises:
        UsageError: `max_failures` is less.
    """

    def __init__(self, max_failures: int, max_bad_records: int | None = None) -> None:
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
        reason = f"failed {times} times, at last because {failure.error}"
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
        """Counts anew: the shard was read to its end."""
        self._troubles.pop(shard, None)

    @property
    def troubled(self) -> list[int]:
        """Shards that are to be read alone, until one is read to its end."""
        return [shard for shard, trouble in self._troubles.items() if trouble.alone]

    def kept_from(self, reader: Task) -> list[int]:
        """Shards that somebody else is to try now: the only one who did has failed often enough."""
        return [
            shard
            for shard, trouble in self._troubles.items()
            if trouble.readers == {reader} and trouble.times >= self._max_failures - 1
        ]

    def is_troubled(self, shard: int) -> bool:
        """Whether a shard is one of them."""
        return shard in self.troubled

    @property
    def shards_aside(self) -> list[int]:
        """Shards of which something is set aside for good."""
        return list(self._aside)

    def batches_aside(self, shard: int) -> set[int]:
        """Batches of a shard that are set aside for good, by their numbers within it."""
        return self._aside.get(shard, set())

    def snapshot(self) -> list[dict[str, Any]]:
        """What is set aside, as JSON-able dicts."""
        return [{**asdict(each), "batches": list(each.batches)} for each in self.set_aside]

    def restore(self, saved: Sequence[Mapping[str, Any]]) -> list[SetAside]:
        """Adds what `snapshot` gave; what is known here already stays so.

        Returns:
            What is known only here: it was set aside later than that.

        Raises:
            UsageError: It is more than may be set aside.
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
