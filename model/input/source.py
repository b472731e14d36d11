"""The source of a task's input shards; no TensorFlow or NumPy: command lines import it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import JobFailed

if TYPE_CHECKING:
    from .file_index import FileIndex, FileQuery
    from .shard_plan import InputPlan

# Makes a batch from record numbers, int64 of shape [records], or from a file's records.
Read = Callable[[Any], Any]
# Makes the dataset of a file's records, in their order, of the file's name, a string scalar.
OpenFile = Callable[[Any], Any]


@dataclass(frozen=True)
class Lease:
    """A shard to read now.

    Attributes:
        number: Counts this task's leases, from 0.
        shard: The number of the shard.
        epoch: The epoch, which determines the order.
        batches: Numbers of the batches within the shard, in order.
        fills: Sync mode: True if they are read only to fill up a step, and do not count.
    """

    number: int
    shard: int
    epoch: int
    batches: tuple[int, ...]
    fills: bool = False


class InputSource(Protocol):
    """The source of a task's shards."""

    def leases(self, plan: InputPlan) -> Iterator[Lease]:
        """Yields shards to read, until there are no more; called for each new iterator.

        A request for the next one tells that the dataset has read the previous one to its end.
        """

    def find_files(self, query: FileQuery) -> FileIndex:
        """Returns the files that a query means, counted.

        Raises:
            UsageError: There are none, or one is damaged.
            ParamserveError: The job ends meanwhile.
        """

    def note_unread(self, number: int, batches: list[int], explain: Callable[[], str]) -> None:
        """Reports the unreadable batches of a lease that was read to its end.

        Args:
            number: The lease.
            batches: Numbers in the dataset; none if there were only more records than there should.
            explain: Returns the reason, for people; may take a while, and raise `UsageError` if the
                input does not fit the model's description.

        Raises:
            ParamserveError: The input ends here, and the task with it.
        """


class WholeInput:
    """A source that yields everything: for a process without a chief.

    Args:
        find_files: Counts the files of a query; None: they are counted here, each time.
    """

    def __init__(self, find_files: Callable[[FileQuery], FileIndex] | None = None) -> None:
        self._numbers = itertools.count()
        self._find_files = find_files

    def find_files(self, query: FileQuery) -> FileIndex:
        """Counts the files."""
        if self._find_files is not None:
            return self._find_files(query)
        from .file_index import count_files

        return count_files(query)

    def leases(self, plan: InputPlan) -> Iterator[Lease]:
        """Yields every shard of every epoch."""
        epoch = 0
        while plan.epochs is None or epoch < plan.epochs:
            for shard in plan.order(epoch):
                batches = tuple(range(int(plan.batch_counts[shard])))
                yield Lease(next(self._numbers), int(shard), epoch, batches)
            epoch += 1

    def note_unread(self, number: int, batches: list[int], explain: Callable[[], str]) -> None:
        """Fails: there is no other task to retry it, and no chief to report to."""
        raise JobFailed(f"the input cannot be read: {explain()}")
