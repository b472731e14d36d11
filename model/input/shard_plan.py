"""The division of a dataset into shards and batches, and their order.

A batch is the input of one step of one worker; a shard is a range of batches that one worker reads
at a time. Everything here follows from numbers that all tasks share. So a batch's number gives
its records, on every task and after every restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ...errors import UsageError
from ...protos import shards_pb2 as pb

# A lease is granted, reported and checked once for so many batches.
SHARD_BATCHES = 16
# The graph collection with the plans of the datasets that a build function has made.
PLANS = "paramserve/input_plans"
# The parameter server keeps four bytes for each, and the chief reads them all.
MAX_BATCHES = 4_000_000
_MAX_SEED = 2**32
# Records that are listed by number in a message.
_SOME = 20


class FilePart(NamedTuple):
    """Neighbouring records of one file, which are a shard.

    Attributes:
        name: The file.
        records: How many records.
        first: Number of the first one within the file.
    """

    name: str
    records: int
    first: int = 0


@dataclass(frozen=True)
class InputPlan:
    """The plan of an input: its records, the size of batches and shards, and the epochs.

    Attributes:
        name: Name of the dataset within the job.
        num_records: Records in one epoch.
        batch_size: Records of one step; the last batch of a shard may be smaller.
        shard_records: Records of a shard, a multiple of `batch_size`; the last may be smaller.
            0: with whole files.
        epochs: How often all records are read; None: without end.
        seed: Seed of the order.
        shuffle: True if each epoch has an order of its own; False: the order of the records.
        files: The parts of files that are its shards: whole files, or ranges of their records.
            Empty: no files, and records are numbers.
    """

    name: str
    num_records: int
    batch_size: int
    shard_records: int = 0
    epochs: int | None = 1
    seed: int = 0
    shuffle: bool = True
    files: tuple[FilePart, ...] = ()

    def __post_init__(self) -> None:
        _at_least(1, name_of=self.name, num_records=self.num_records, batch_size=self.batch_size)
        if self.epochs is not None:
            _at_least(1, name_of=self.name, epochs=self.epochs)
        if not 0 <= self.seed < _MAX_SEED:
            raise UsageError(f"seed={self.seed}: expected a number from 0 to {_MAX_SEED - 1}")
        if self.shard_records or not self.files:
            _at_least(1, name_of=self.name, shard_records=self.shard_records)
            if self.shard_records % self.batch_size:
                raise UsageError(
                    f"shard_records={self.shard_records} of dataset {self.name!r}: expected a "
                    f"multiple of batch_size={self.batch_size}, as a step reads of one shard only"
                )
        if self.num_batches > MAX_BATCHES:
            raise UsageError(
                f"dataset {self.name!r} has {self.num_batches} batches of {self.batch_size} "
                f"records, more than {MAX_BATCHES}: give a larger batch_size"
            )

    @cached_property
    def sizes(self) -> Any:
        """Records of each shard; int64 of shape [shards]."""
        if self.files:
            return np.array([part.records for part in self.files], np.int64)
        whole, rest = divmod(self.num_records, self.shard_records)
        return np.array([self.shard_records] * whole + [rest] * bool(rest), np.int64)

    @cached_property
    def first_records(self) -> Any:
        """Number of each shard's first record; int64 of shape [shards]."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def batch_counts(self) -> Any:
        """Batches of each shard; int64 of shape [shards]."""
        return -(-self.sizes // self.batch_size)

    @cached_property
    def first_batches(self) -> Any:
        """Number of each shard's first batch; int64 of shape [shards]."""
        return np.cumsum(self.batch_counts) - self.batch_counts

    @property
    def num_shards(self) -> int:
        """Shards in one epoch."""
        return len(self.sizes)

    @cached_property
    def num_batches(self) -> int:
        """Batches in one epoch."""
        return int(self.batch_counts.sum())

    @cached_property
    def digest(self) -> str:
        """A digest of all fields that determine the records of a batch."""
        layout = (self.name, self.num_records, self.batch_size, self.shard_records, self.seed)
        text = repr((*layout, self.shuffle, self.files))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_proto(self) -> pb.Dataset:
        """Returns a value that tasks compare to check that their plans agree."""
        return pb.Dataset(
            name=self.name,
            num_records=self.num_records,
            num_shards=self.num_shards,
            batch_size=self.batch_size,
            epochs=self.epochs or 0,
            seed=self.seed,
            shuffle=self.shuffle,
            digest=self.digest,
        )

    def order(self, epoch: int) -> Any:
        """Returns the shards in the order of an epoch; int64 of shape [shards]."""
        if not self.shuffle:
            return np.arange(self.num_shards)
        return np.random.RandomState([self.seed, epoch]).permutation(self.num_shards)

    def records(self, shard: int, epoch: int) -> Any:
        """Returns a shard's record numbers in the order of an epoch; int64 of shape [records].

        Batch k holds those from `k * batch_size` on.
        """
        first, size = int(self.first_records[shard]), int(self.sizes[shard])
        if not self.shuffle:
            return np.arange(first, first + size)
        # One more number than `order` has, so that no two generators are alike.
        return first + np.random.RandomState([self.seed, epoch, shard + 1]).permutation(size)

    def batch_range(self, shard: int) -> slice:
        """Returns the numbers of a shard's batches."""
        first = int(self.first_batches[shard])
        return slice(first, first + int(self.batch_counts[shard]))

    @property
    def is_fixed(self) -> bool:
        """True if a batch has the same records in each epoch."""
        return bool(self.files) or not self.shuffle

    def span(self, shard: int, epoch: int, batches: Sequence[int]) -> tuple[str, int, int]:
        """Returns the file of some batches of a shard, and their first and last record numbers.

        Args:
            shard: The shard.
            epoch: Which time it is read.
            batches: Numbers within the shard.

        Returns:
            The name of the file, or an empty one without files; numbers are those within the file,
            or within the dataset.
        """
        first = min(batches) * self.batch_size
        last = min((max(batches) + 1) * self.batch_size, int(self.sizes[shard])) - 1
        if self.files:
            part = self.files[shard]
            return part.name, part.first + first, part.first + last
        if not self.shuffle:
            start = int(self.first_records[shard])
            return "", start + first, start + last
        numbers = self._numbers(shard, epoch, batches)
        return "", min(numbers), max(numbers)

    def describe(self, shard: int, epoch: int, batches: Sequence[int]) -> str:
        """Describes some batches of a shard in an epoch, by their numbers within it."""
        file, first, last = self.span(shard, epoch, batches)
        if file or not self.shuffle:
            return f"records {first} to {last} of {file or repr(self.name)}"
        numbers = self._numbers(shard, epoch, batches)
        some = ", ".join(map(str, sorted(numbers)[:_SOME]))
        more = f" and {len(numbers) - _SOME} more" if len(numbers) > _SOME else ""
        return f"records {some}{more} of {self.name!r}"

    def _numbers(self, shard: int, epoch: int, batches: Sequence[int]) -> list[int]:
        order, size = self.records(shard, epoch), self.batch_size
        return [int(n) for batch in batches for n in order[batch * size : (batch + 1) * size]]


def choose_shard_records(num_records: int, batch_size: int) -> int:
    """Returns the records of a shard: enough batches for a lease, few enough to share them."""
    batches = -(-num_records // max(1, batch_size))
    return batch_size * min(SHARD_BATCHES, max(1, batches // 32))


def _at_least(least: int, *, name_of: str, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise UsageError(f"{name}={value} of dataset {name_of!r}: expected at least {least}")
