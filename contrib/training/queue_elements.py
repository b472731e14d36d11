"""Helpers of the queue-based inputs: a graph to build in, and tensors that fit into a queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import tensorflow as tf

# A `tf.SparseTensor` is three tensors, and goes through a queue as three strings.
PACKED_SPARSE_SHAPE = (3,)


def require_graph(caller: str) -> None:
    """Refuses eager mode, which has no queue runners.

    Args:
        caller: Name of the function that needs a graph.

    Raises:
        RuntimeError: Eager execution is on, and no graph is being built.
    """
    if tf.executing_eagerly():
        raise RuntimeError(
            f"{caller}() makes queues for a graph, and there is none: call it inside "
            "`with tf.Graph().as_default():`, or read the input with `tf.data`"
        )


def checked_count(what: str, count: Any) -> int:
    """Returns `count`, a number that has to be known before the graph runs.

    Raises:
        TypeError: It is no int.
        ValueError: It is less than 1.
    """
    if isinstance(count, bool) or not isinstance(count, Integral):
        raise TypeError(f"{what}={count!r}: expected an int")
    if count < 1:
        raise ValueError(f"{what}={count}: expected at least 1")
    return int(count)


def as_tensors(tensors: Any, caller: str) -> list[Any]:
    """Converts a list of values to tensors.

    Args:
        tensors: Any iterable of values, but no single tensor.
        caller: Name of the function whose argument it is.

    At least one tensor; a `tf.SparseTensor` is not converted.
        At least one tensor; a `tf.SparseTensor` stays what it is.

    Raises:
        TypeError: `tensors` is no list.
        ValueError: `tensors` is empty.
    """
    sparse = (tf.SparseTensor, tf.compat.v1.SparseTensorValue)
    single = isinstance(tensors, (tf.Tensor, *sparse, str, bytes, Mapping))
    if single or not isinstance(tensors, Iterable):
        raise TypeError(
            f"tensors={tensors!r} of {caller}() is not a list of tensors: put it into a list"
        )
    converted = [tf.compat.v1.convert_to_tensor_or_sparse_tensor(each) for each in tensors]
    if not converted:
        raise ValueError(f"tensors of {caller}() is empty: expected at least one tensor")
    return converted


def as_scalar(value: Any, what: str) -> Any:
    """Converts a value to a scalar tensor.

    Args:
        value: The value. If its rank is unknown, it is checked when the result is evaluated.
        what: Name of the argument.

    Raises:
        ValueError: Its rank is known, and not 0.
        tf.errors.InvalidArgumentError: It is no scalar (when the result is evaluated).
    """
    tensor = tf.convert_to_tensor(value, name=what)
    if tensor.shape.rank is None:
        return tf.ensure_shape(tensor, [])
    if tensor.shape.rank:
        raise ValueError(f"{what} has the shape {tensor.shape}: it must be a scalar")
    return tensor


def as_list(batch: Any) -> list[Any]:
    """Returns a batch that `tf.compat.v1.train` made as a list, also if it is a single tensor."""
    return list(batch) if isinstance(batch, (list, tuple)) else [batch]


def pack(tensor: Any) -> Any:
    """Returns `tensor`, or three strings that stand for it if it is sparse."""
    return tf.io.serialize_sparse(tensor) if isinstance(tensor, tf.SparseTensor) else tensor


def unpack_batch(batch: Any, like: Any) -> Any:
    """Returns a batch of packed tensors, unpacked.

    Args:
        batch: A tensor of shape [batch size, ...].
        like: An unpacked tensor of the same kind.

    Returns:
        `batch`, or a `tf.SparseTensor` of shape [batch size, ...] if `like` is sparse.
    """
    if not isinstance(like, tf.SparseTensor):
        return batch
    rank = like.shape.rank
    # TensorFlow documents the rank of one element here, but uses it as that of the batch.
    batch_rank = None if rank is None else rank + 1
    return tf.io.deserialize_many_sparse(batch, like.dtype, rank=batch_rank)


def add_queue_runner(
    queue: Any, enqueue_ops: Sequence[Any], close_op: Any = None, cancel_op: Any = None
) -> None:
    """Adds a queue runner to the graph, which ends well when its input ends.

    Args:
        queue: The queue, which knows how to `close` itself.
        enqueue_ops: Ops to run, over and over, each in a thread of its own.
        close_op: Run when the last of these threads found its input at an end; by default it
            closes `queue`.
        cancel_op: Run when the coordinator stops; by default it closes `queue` and cancels
            pending enqueues.
    """
    tf.compat.v1.train.add_queue_runner(
        tf.compat.v1.train.QueueRunner(
            queue,
            list(enqueue_ops),
            close_op,
            cancel_op,
            queue_closed_exception_types=(tf.errors.OutOfRangeError, tf.errors.CancelledError),
        )
    )
