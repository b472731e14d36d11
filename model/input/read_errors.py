"""The reason why a batch of the input cannot be read: it is read again, outside of the training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ...reasons import describe, note_op, reason_of
from ..iterators import untuned
from .source import Read

v1 = tf.compat.v1
log = logging.getLogger(__name__)

# The input has failed, and may hang now.
TIMEOUT_MS = 60_000


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
