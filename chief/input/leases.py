"""What the ledger of the input speaks of: leases, their ends, and the figures of it all."""

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
        shard: Which shard.
        epoch: In the order of which epoch.
        batches: What is to be read, as numbers within the shard, in order.
        fills: Sync mode: whether these wait for others to make up a step, and are read a second
            time for want of others, without being counted again.
    """

    lease: int
    shard: int
    epoch: int
    batches: tuple[int, ...] = ()
    fills: bool = False


@dataclass(frozen=True)
class Finished:
    """What a task says at the end of a lease.

    Attributes:
        held: The lease.
        missed: Batches that never came to a step, through a fault of the input.
        error: Why, for people.
        broken_off: Whether a step of it may still be under way, and be counted later.
    """

    held: Grant
    missed: int = 0
    error: str = ""
    broken_off: bool = False


@dataclass(frozen=True)
class LedgerProgress:
    """The ledger in figures.

    Attributes:
        epoch: The oldest epoch that is not done.
        epochs: How many there are; None: without end.
        done: Shards of that epoch that are done, those set aside included.
        shards: Shards in an epoch.
        leased: Shards that are being read.
        set_aside: What is not read any more, oldest first.
        records_set_aside: Records of all that.
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
        """One line for people."""
        of = f" of {self.epochs}" if self.epochs is not None else ""
        text = f"epoch {self.epoch + 1}{of}, {self.done} of {self.shards} shards done"
        if self.set_aside:
            newest = self.set_aside[-1]
            text += f"; {self.records_set_aside} records set aside, at last {newest.describe()}"
        return text
