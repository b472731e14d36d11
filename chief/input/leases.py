"""The values of the input's ledger: leases, their ends, and its figures."""

from __future__ import annotations

from dataclasses import dataclass

from .failures import SetAside


class NoDataset(Exception):
    """The job's model reads no leased input, or is not built yet."""


@dataclass(frozen=True)
class Grant:
    """A shard for a task to read.

    Attributes:
        lease: Its number; no other life of the chief gives it again.
        shard: The number of the shard.
        epoch: The epoch, which determines the order.
        batches: The batches to read, as numbers within the shard, in order.
        fills: Sync mode: True if these wait for others to complete a step, and are read a second
            time for lack of others, without being counted again.
    """

    lease: int
    shard: int
    epoch: int
    batches: tuple[int, ...] = ()
    fills: bool = False


@dataclass(frozen=True)
class Finished:
    """A task's report at the end of a lease.

    Attributes:
        held: The lease.
        missed: Batches that never came to a step, through a fault of the input.
        error: The error, for people.
        broken_off: True if a step of it may still be under way, and be counted later.
    """

    held: Grant
    missed: int = 0
    error: str = ""
    broken_off: bool = False


@dataclass(frozen=True)
class LedgerProgress:
    """The figures of the ledger.

    Attributes:
        epoch: The oldest epoch that is not done.
        epochs: Number of epochs; None: without end.
        done: Shards of that epoch that are done, those set aside included.
        shards: Shards in an epoch.
        leased: Shards that are being read.
        set_aside: The batches set aside, oldest first.
        records_set_aside: Number of their records.
        repeated: Batches that were applied once too often.
    """

    epoch: int
    epochs: int | None
    done: int
    shards: int
    leased: int
    set_aside: tuple[SetAside, ...]
    records_set_aside: int
    repeated: int

    def describe(self) -> str:
        """Describes the figures in one line, for people."""
        of = f" of {self.epochs}" if self.epochs is not None else ""
        text = f"epoch {self.epoch + 1}{of}, {self.done} of {self.shards} shards done"
        if self.set_aside:
            newest = self.set_aside[-1]
            text += f"; {self.records_set_aside} records set aside, the latest: {newest.describe()}"
        return text
