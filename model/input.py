"""The input of a build function as a `tf.data.Dataset` whose shards somebody deals.

In a worker of a job that is the chief; anywhere else each process reads all of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import first_line
from .input_plan import PLANS, InputPlan
from .input_source import InputSource, OpenFile, Read

log = logging.getLogger(__name__)

# Batches that are made ahead of the steps.
READ_AHEAD = 2
# In place of the epoch: of a batch that fills up a step, and does not count.
UNCOUNTED = -1


def make_dataset(
    plan: InputPlan,
    source: InputSource,
    *,
    read: Read | None = None,
    open_file: OpenFile | None = None,
) -> Any:
    """Makes the dataset of `(position, batch)` in the current graph, and notes the plan there.

    A position is an int64 tensor of shape [3]: the batch's number in the dataset, its epoch or
    `UNCOUNTED`, and the number of the lease. What cannot be read is left out; the source gets to
    know.

    Args:
        plan: What is read.
        source: Deals the shards.
        read: Makes a batch; None: the record numbers, or the file's records, are the batch.
        open_file: Makes a dataset of a file, if the plan has files.
    """
    tf.compat.v1.get_default_graph().add_to_collection(PLANS, plan)
    leased = _leases(plan, source, marked=read is not None or open_file is not None)
    if open_file is not None:
        return leased.flat_map(
            lambda *lease: _guard(_batches_of_file(plan, open_file, *lease), read, source)
        ).prefetch(READ_AHEAD)
    if read is not None:
        return leased.flat_map(
            lambda *lease: _guard(_batches_of_records(plan, *lease), read, source)
        ).prefetch(READ_AHEAD)
    return leased.flat_map(lambda *lease: _batches_of_records(plan, *lease)).prefetch(READ_AHEAD)


def _leases(plan: InputPlan, source: InputSource, *, marked: bool) -> Any:
    """The leases as tensors: what their positions have in common, their batches, and the content.

    These are int64 of shape [3] (a position of batch 0) and [batches], and the records' numbers,
    int64 of shape [records], or the file's name, a string scalar.
    """
    content = tf.TensorSpec([], tf.string) if plan.files else tf.TensorSpec([None], tf.int64)

    def generate() -> Iterator[tuple[Any, Any, Any]]:
        for lease in source.leases(plan, marked=marked):
            if plan.files and not _can_open(plan.files[lease.shard][0]):
                continue
            epoch = UNCOUNTED if lease.fills else lease.epoch
            start = np.array([plan.first_batches[lease.shard], epoch, lease.number], np.int64)
            batches = np.array(lease.batches, np.int64)
            name = plan.files[lease.shard][0] if plan.files else None
            yield start, batches, name or plan.records(lease.shard, lease.epoch)

    signature = (tf.TensorSpec([3], tf.int64), tf.TensorSpec([None], tf.int64), content)
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def _can_open(name: str) -> bool:
    """Whether a file can be read at all: TensorFlow's datasets would try to open it for ever."""
    try:
        with tf.io.gfile.GFile(name, "rb") as file:
            file.read(1)
    except tf.errors.OpError as error:
        log.error("%s cannot be read: %s", name, first_line(error))
        return False
    return True


def _batches_of_records(plan: InputPlan, start: Any, batches: Any, records: Any) -> Any:
    def batch_of(number: Any) -> tuple[Any, Any]:
        first = number * plan.batch_size
        return start + tf.stack([number, 0, 0]), records[first : first + plan.batch_size]

    return tf.data.Dataset.from_tensor_slices(batches).map(batch_of)


def _batches_of_file(
    plan: InputPlan, open_file: OpenFile, start: Any, batches: Any, name: Any
) -> Any:
    """Reads a file from the first batch that is wanted to the last.

    After a record that cannot be read, the rest does not fall into the same batches any more: it is
    left out.
    """
    size = tf.constant(plan.batch_size, tf.int64)
    last_batches = tf.constant(plan.first_batches + plan.batch_counts - 1, tf.int64)
    last_sizes = tf.constant(plan.sizes - (plan.batch_counts - 1) * plan.batch_size, tf.int64)

    def is_wanted(numbers: Any, _: Any) -> Any:
        batch = numbers[0] // size
        is_last = tf.equal(last_batches, start[0] + batch)
        whole = tf.where(
            tf.reduce_any(is_last), tf.reduce_sum(last_sizes * tf.cast(is_last, tf.int64)), size
        )
        is_aligned = tf.equal(numbers[0] % size, 0) & tf.equal(tf.size(numbers, tf.int64), whole)
        return is_aligned & tf.reduce_any(tf.equal(batches, batch))

    records = open_file(name).enumerate().skip(batches[0] * size)
    records = records.take((batches[-1] - batches[0] + 1) * size).batch(plan.batch_size)
    return records.filter(is_wanted).map(
        lambda numbers, batch: (start + tf.stack([numbers[0] // size, 0, 0]), batch)
    )


def _guard(dataset: Any, read: Read | None, source: InputSource) -> Any:
    """Makes batches, leaves out those that fail, and tells the source which did not."""

    def mark(position: Any) -> Any:
        source.mark(int(position[2]), int(position[0]))
        return position

    def marked(position: Any, batch: Any) -> tuple[Any, Any]:
        noted = tf.numpy_function(mark, [position], tf.int64)
        return tf.ensure_shape(noted, [3]), batch

    if read is not None:
        dataset = dataset.map(
            lambda position, batch: (position, read(batch)), num_parallel_calls=READ_AHEAD
        )
    return dataset.ignore_errors(log_warning=True).map(marked)
