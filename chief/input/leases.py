"""The values of the input's ledger: leases, their ends, and its figures.

Pure bookkeeping without a lock: the ledger that owns it uses it in one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ...cluster.spec import Task
from .failures import SetAside

# Sync mode: a gradient that is not seen waiting so often had the time to be counted, if it ever is.
SETTLE_LOOKS = 2
# A task that has not asked for so long is not counted as a possible reader of another's shard.
READER_SECS = 60.0


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


class Readers:
    """The readers of a dataset.

    Args:
        clock: Seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked: dict[Task, float] = {}
        self._waits: dict[Task, float] = {}

    def note_request(self, task: Task, *, is_granted: bool) -> None:
        """Notes that a task has asked for a shard, and whether it got one."""
        self._asked[task] = self._clock()
        if is_granted:
            self._waits.pop(task, None)
        else:
            self._waits.setdefault(task, self._clock())

    def remove(self, task: Task) -> None:
        """Forgets a task that is gone."""
        self._asked.pop(task, None)

    def end_wait(self, task: Task) -> None:
        """Notes that a task does not wait any more."""
        self._waits.pop(task, None)

    def end_waits(self) -> None:
        """Notes that no task waits any more."""
        self._waits.clear()

    def waiting(self, secs: float) -> set[Task]:
        """Returns the tasks that have waited for a shard for so many seconds."""
        now = self._clock()
        return {task for task, since in self._waits.items() if now - since >= secs}

    def is_only(self, task: Task) -> bool:
        """Returns whether no other task has asked for a shard lately."""
        since = self._clock() - READER_SECS
        return not any(at > since for other, at in self._asked.items() if other != task)
