"""The input of a build function as a `tf.data.Dataset` whose shards a source deals.

In a worker of a job the source is the chief; elsewhere each process reads the whole input.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import UsageError
from ...reasons import describe, note_op, reason_of
from ..building import untuned
from .files import Files
from .shard_plan import PLANS, InputPlan
from .source import InputSource, Lease, Read

# Batches that are made ahead of the steps.
READ_AHEAD = 2
# In place of the epoch: of a batch that fills up a step, and does not count.
UNCOUNTED = -1
# In place of a batch: there are more records than there should be.
_SURPLUS = -1
v1 = tf.compat.v1
log = logging.getLogger(__name__)
# The input has failed, and may hang now.
TIMEOUT_MS = 60_000


def make_dataset(
    plan: InputPlan,
    source: InputSource,
    *,
    read: Read | None = None,
    files: Files | None = None,
) -> Any:
    """Makes the dataset of `(position, batch)` in the current graph, and notes the plan there.

    A position is an int64 tensor of shape [3]: the batch's number in the dataset, its epoch or
    `UNCOUNTED`, and the number of the lease. Unreadable batches are left out, and reported to the
    source.

    Args:
        plan: The plan of the input.
        source: Deals the shards.
        read: Makes a batch; None: the record numbers, or the file's records, are the batch.
        files: Opens the files, if the plan has any.
    """
    tf.compat.v1.get_default_graph().add_to_collection(PLANS, plan)
    return _LeasedDataset(plan, source, read, files).make().prefetch(READ_AHEAD)


class _LeasedDataset:
    """The leases, their batches, and the batches that could not be read."""

    def __init__(
        self, plan: InputPlan, source: InputSource, read: Read | None, files: Files | None
    ) -> None:
        self._plan = plan
        self._source = source
        self._read = read
        self._files = files
        # The batches that could be read, by the number of their lease.
        self._marks: dict[int, set[int]] = {}

    def make(self) -> Any:
        """Returns the dataset of `(position, batch)`."""
        numbers = [tf.TensorSpec([3], tf.int64), tf.TensorSpec([None], tf.int64)]
        content = [tf.TensorSpec([None], tf.int64)]
        if self._files is not None:
            dtypes = (tf.string, tf.int64, tf.int64, tf.int64)
            content = [tf.TensorSpec([], dtype) for dtype in dtypes]
        leases = tf.data.Dataset.from_generator(self._leases, output_signature=(*numbers, *content))
        if not self._can_fail:
            return leases.flat_map(self._raw_batches)
        return leases.flat_map(
            lambda *lease: self._batches(*lease).ignore_errors(log_warning=True).map(self._marked)
        )

    @property
    def _can_fail(self) -> bool:
        return self._read is not None or self._files is not None

    # -- leases

    def _leases(self) -> Iterator[tuple[Any, ...]]:
        """Yields leases as arrays; the request for the next one means that the last was read.

        The arrays are the common part of the lease's positions (the position of batch 0), its
        batches, and the records' numbers. With files, the latter are a place in a file (see
        `Files.locate`) and the number of records in the shard.
        """
        for lease in self._source.leases(self._plan):
            self._marks[lease.number] = set()
            trouble: Exception | None = None
            try:
                arrays = self._arrays(lease)
            except (UsageError, OSError, tf.errors.OpError) as error:
                trouble = error
            else:
                yield arrays
            marked = self._marks.pop(lease.number, set())
            if self._can_fail:
                self._note_unread(lease, marked, trouble)

    def _note_unread(self, lease: Lease, marked: set[int], trouble: Exception | None) -> None:
        first = int(self._plan.first_batches[lease.shard])
        leased = {first + batch for batch in lease.batches}
        if marked != leased:
            unread = sorted(leased - marked)
            explain = functools.partial(self._explain, lease, [n - first for n in unread], trouble)
            self._source.note_unread(lease.number, unread, explain)

    def _arrays(self, lease: Lease) -> tuple[Any, ...]:
        epoch = UNCOUNTED if lease.fills else lease.epoch
        start = np.array([self._plan.first_batches[lease.shard], epoch, lease.number], np.int64)
        batches = np.array(lease.batches, np.int64)
        if self._files is None:
            return start, batches, self._plan.records(lease.shard, lease.epoch)
        part, record = self._plan.files[lease.shard], lease.batches[0] * self._plan.batch_size
        return start, batches, *self._files.locate(part, record), part.records

    # -- unreadable batches

    def _explain(self, lease: Lease, unread: list[int], trouble: Exception | None) -> str:
        """Explains why the first one of some batches could not be read.

        Raises:
            UsageError: The file does not fit its description.
        """
        if isinstance(trouble, UsageError):
            raise trouble
        if trouble is not None:
            return reason_of(trouble)
        reason = self._try_again(lease, unread[0]) if unread else None
        try:
            if reason is None and self._files is not None:
                self._files.check(self._plan.files[lease.shard])
        except (OSError, tf.errors.OpError) as error:
            reason = reason_of(error)
        return reason or "the input could not read it, see the log of the worker"

    def _try_again(self, lease: Lease, batch: int) -> str | None:
        """Reads a batch by itself; returns the error, if there is one."""
        arrays = self._arrays(Lease(lease.number, lease.shard, lease.epoch, (batch,)))

        def records() -> Any:
            # As in `make`: at the top level, some datasets of TensorFlow's fail to be optimized.
            lease = tf.data.Dataset.from_tensors(tuple(map(np.asarray, arrays)))
            return lease.flat_map(self._raw_batches).map(lambda _, raw: raw).unbatch()

        found = find_trouble(records, self._read, self._plan.batch_size)
        if found is None:
            return None
        if found.record is None:
            return found.reason
        number = batch * self._plan.batch_size + found.record
        if self._files is None:
            return f"record {self._plan.records(lease.shard, lease.epoch)[number]}: {found.reason}"
        return f"record {self._plan.files[lease.shard].first + number}: {found.reason}"

    # -- batches, in the graph

    def _batches(self, *lease: Any) -> Any:
        batches, read = self._raw_batches(*lease), self._read
        if read is None:
            return batches
        return batches.map(
            lambda position, batch: (position, read(batch)), num_parallel_calls=READ_AHEAD
        )

    def _raw_batches(self, start: Any, batches: Any, *content: Any) -> Any:
        if self._files is not None:
            return self._batches_of_file(start, batches, *content)
        (records,) = content

        def batch_of(number: Any) -> tuple[Any, Any]:
            first = number * self._plan.batch_size
            return start + tf.stack([number, 0, 0]), records[first : first + self._plan.batch_size]

        return tf.data.Dataset.from_tensor_slices(batches).map(batch_of)

    def _batches_of_file(
        self, start: Any, batches: Any, name: Any, begin: Any, skipped: Any, records: Any
    ) -> Any:
        """Reads from the first batch that is wanted to the last.

        After a record that cannot be read, the rest does not fall into the same batches any more:
        it is left out. One record more than the file is said to have is noted, and left out too.
        """
        assert self._files is not None
        size = tf.constant(self._plan.batch_size, tf.int64)

        def note_surplus() -> Any:
            return tf.numpy_function(self._mark_surplus, [start], tf.bool)

        def is_wanted(numbers: Any, _: Any) -> Any:
            whole = tf.equal(tf.size(numbers, tf.int64), tf.minimum(size, records - numbers[0]))
            is_aligned = tf.equal(numbers[0] % size, 0)
            wanted = whole & is_aligned & tf.reduce_any(tf.equal(batches, numbers[0] // size))
            return tf.cond(numbers[0] < records, lambda: wanted, note_surplus)

        first = batches[0] * size
        end = (batches[-1] + 1) * size
        # Where it is not known, one more shows that there is one more.
        end = tf.minimum(end, records) if self._files.are_counted else end + 1
        dataset = self._files.open(name, begin).skip(skipped).enumerate(first).take(end - first)
        return (
            dataset.batch(self._plan.batch_size)
            .filter(is_wanted)
            .map(lambda numbers, batch: (start + tf.stack([numbers[0] // size, 0, 0]), batch))
        )

    def _mark_surplus(self, start: Any) -> Any:
        """Notes a record that the file should not have, as a batch that does not exist."""
        self._marks.get(int(start[2]), set()).add(_SURPLUS)
        return np.bool_(False)

    def _marked(self, position: Any, batch: Any) -> tuple[Any, Any]:
        """Records a batch that could be read, and passes it on."""

        def mark(position: Any) -> Any:
            self._marks.get(int(position[2]), set()).add(int(position[0]))
            return position

        noted = tf.numpy_function(mark, [position], tf.int64)
        return tf.ensure_shape(noted, [3]), batch


@dataclass(frozen=True)
class Trouble:
    """An error of a batch.

    Attributes:
        reason: The error, in one line.
        record: Number of the failing record within the batch; None: not a single one.
    """

    reason: str
    record: int | None = None


def find_trouble(records: Callable[[], Any], read: Read | None, size: int) -> Trouble | None:
    """Reads a batch again, in a graph and a session of its own.

    Args:
        records: Makes the dataset of the batch's records.
        read: Makes a batch of records into another one.
        size: Records in the batch, at most.

    Returns:
        The error; None if there is none, or if the batch cannot be read outside of its graph.
    """
    try:
        # Records that cannot even be counted have no number.
        if (torn := _read(records, 1)) or read is None:
            return Trouble(reason_of(torn[0])) if torn else None
        if not (errors := _read(lambda: records().batch(size).map(read), 1)):
            return None
        alone = _read(lambda: records().batch(1).map(read), size)
    except Exception as error:  # The build function's own code, in another graph than its own.
        log.warning("a failed batch cannot be read again: %s", reason_of(error))
        return None
    if len(alone) == 1:
        ((record, cause),) = alone.items()
        return Trouble(describe(cause), record)
    return Trouble(describe(errors[0]))


def _read(make: Callable[[], Any], steps: int) -> dict[int, tf.errors.OpError]:
    """Returns the errors of a dataset's elements, by their number."""
    errors: dict[int, tf.errors.OpError] = {}
    with tf.Graph().as_default() as graph, untuned():
        iterator = v1.data.make_initializable_iterator(make())
        following = iterator.get_next()
        with v1.Session(graph=graph, config=v1.ConfigProto(device_count={"GPU": 0})) as session:
            options = v1.RunOptions(timeout_in_ms=TIMEOUT_MS)
            session.run(v1.tables_initializer())
            session.run(iterator.initializer, options=options)
            for number in range(steps):
                try:
                    session.run(following, options=options)
                except tf.errors.OutOfRangeError:
                    break
                except tf.errors.OpError as error:
                    note_op(error, graph)
                    errors[number] = error
    return errors
