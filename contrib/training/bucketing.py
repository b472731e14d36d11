"""Batches of elements that are alike: `bucket` and `bucket_by_sequence_length`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

import tensorflow as tf

from .queue_elements import (
    add_queue_runner,
    as_list,
    as_scalar,
    as_tensors,
    checked_count,
    pack,
    require_graph,
    unpack_batch,
)


def bucket(
    tensors: Any,
    which_bucket: Any,
    batch_size: Any,
    num_buckets: int,
    num_threads: int = 1,
    capacity: int = 32,
    bucket_capacities: Sequence[int] | None = None,
    shapes: Any = None,
    dynamic_pad: bool = False,
    allow_smaller_final_batch: bool = False,
    keep_input: Any = True,
    shared_name: str | None = None,
    name: str | None = None,
) -> tuple[Any, Any]:
    """Batches elements together with others of the same bucket.

    Each bucket has a queue of elements. As soon as there are `batch_size` of them, they go as one
    batch to the top queue, which the results are taken from. Two queue runners do this; start them
    with `tf.compat.v1.train.start_queue_runners` or a `MonitoredSession`. The results raise
    `tf.errors.OutOfRangeError` when the input has ended and all batches are taken.

    Example::

        which, (image, label) = bucket(
            [image, label], which_bucket=label, batch_size=32, num_buckets=10
        )

    Args:
        tensors: One element: a list, or a dictionary with names, of tensors. Some may be
            `tf.SparseTensor`s.
        which_bucket: An integer scalar tensor in [0, num_buckets), the element's bucket. An element
            with another number is dropped.
        batch_size: Number of elements in a batch, an int or an int32 scalar tensor; or one for each
            bucket in a list or tuple.
        num_buckets: Number of buckets, at least 1.
        num_threads: Number of threads that put elements into the buckets. With more than one,
            elements may change their order.
        capacity: Number of batches in the top queue, and of elements in each bucket.
        bucket_capacities: Number of elements in each bucket, in place of `capacity`.
        shapes: Shapes of `tensors`, as a list in their order (a dictionary's names are sorted) or
            as a dictionary; by default those that the tensors have.
        dynamic_pad: Whether dimensions that are None in a shape may differ between elements.
            Within a batch, shorter ones are padded at the end with zeros or "".
        allow_smaller_final_batch: Whether the rest of a bucket becomes a smaller batch when the
            input ends, and is not dropped.
        keep_input: A bool or a bool scalar tensor: whether to use the element, or drop it.
        shared_name: If given, sessions share the queues under this name.
        name: Name scope of the ops.

    Returns:
        The bucket of a batch, an int32 scalar tensor, and the batch, in the structure of `tensors`
        (a list, or a dictionary): each has the shape [batch_size, ...].

    Raises:
        ValueError: `batch_size` or `bucket_capacities` has not `num_buckets` entries; `tensors` is
            empty; `which_bucket` or `keep_input` is not a scalar; or a shape is not fully known
            although `dynamic_pad` is false.
        RuntimeError: Eager execution is on.
    """
    require_graph("bucket")
    checked_count("num_buckets", num_buckets)
    sizes = _one_per_bucket("batch_size", batch_size, num_buckets)
    capacities = _one_per_bucket(
        "bucket_capacities" if bucket_capacities is not None else "capacity",
        bucket_capacities if bucket_capacities is not None else capacity,
        num_buckets,
    )
    names = sorted(tensors) if isinstance(tensors, Mapping) else None
    with tf.compat.v1.name_scope(name, "bucket"):
        listed = tensors if names is None else [tensors[each] for each in names]
        elements = as_tensors(listed, "bucket")
        packed = [pack(element) for element in elements]
        queues = _bucket_queues(
            capacities,
            [each.dtype for each in packed],
            _element_shapes(packed, shapes, names, dynamic_pad),
            dynamic_pad,
            shared_name,
        )
        enqueue = _enqueue_into(queues, which_bucket, keep_input, packed)
        add_queue_runner(
            queues[0],
            [enqueue] * num_threads,
            close_op=tf.group(*(queue.close() for queue in queues)),
            cancel_op=tf.group(*(queue.close(cancel_pending_enqueues=True) for queue in queues)),
        )
        top = _top_queue(queues, sizes, capacity, allow_smaller_final_batch, shared_name)
        bucket_taken, *batch = top.dequeue(name="dequeue_top")
        batch = [unpack_batch(*pair) for pair in zip(batch, elements, strict=True)]
    return bucket_taken, dict(zip(names, batch, strict=True)) if names else batch


def bucket_by_sequence_length(
    input_length: Any,
    tensors: Any,
    batch_size: Any,
    bucket_boundaries: Sequence[int],
    num_threads: int = 1,
    capacity: int = 32,
    bucket_capacities: Sequence[int] | None = None,
    shapes: Any = None,
    dynamic_pad: bool = False,
    allow_smaller_final_batch: bool = False,
    keep_input: Any = True,
    shared_name: str | None = None,
    name: str | None = None,
) -> tuple[Any, Any]:
    """Batches sequences together with others of about the same length.

    Bucket i takes the lengths from `bucket_boundaries[i - 1]` up to, but not including,
    `bucket_boundaries[i]`; the first and the last bucket are open. So n boundaries make n + 1
    buckets. With `dynamic_pad`, each batch is padded only to its longest sequence.

    Further arguments are those of `bucket`, with one entry more than `bucket_boundaries` where they
    are lists by bucket, and `shapes` without that of `input_length`.

    * `input_length`: An integer scalar tensor, the number of steps in the sequence.
    * `bucket_boundaries`: Increasing numbers of steps, in a list or tuple.

    Returns:
        The lengths of the sequences in a batch, a tensor of shape [batch_size], and the batch, in
        the structure of `tensors`.

    Raises:
        TypeError: `bucket_boundaries` is neither list nor tuple, or has an entry that is no int.
        ValueError: `bucket_boundaries` is empty or does not increase, or as for `bucket`.
        RuntimeError: Eager execution is on.
    """
    require_graph("bucket_by_sequence_length")
    boundaries = _checked_boundaries(bucket_boundaries)
    names = sorted(tensors) if isinstance(tensors, Mapping) else None
    elements = tensors if names is None else [tensors[each] for each in names]
    if isinstance(shapes, Mapping) and names:
        shapes = [shapes[each] for each in names]
    with tf.compat.v1.name_scope(name, "bucket_by_sequence_length"):
        elements = as_tensors(elements, "bucket_by_sequence_length")
        length = as_scalar(input_length, "input_length")
        reached = tf.constant(boundaries, tf.int64) <= tf.cast(length, tf.int64)
        _, (lengths, *batch) = bucket(
            [length, *elements],
            which_bucket=tf.reduce_sum(tf.cast(reached, tf.int32)),
            batch_size=batch_size,
            num_buckets=len(boundaries) + 1,
            num_threads=num_threads,
            capacity=capacity,
            bucket_capacities=bucket_capacities,
            shapes=None if shapes is None else [[], *shapes],
            dynamic_pad=dynamic_pad,
            allow_smaller_final_batch=allow_smaller_final_batch,
            keep_input=keep_input,
            shared_name=shared_name,
        )
    return lengths, dict(zip(names, batch, strict=True)) if names else batch


def _checked_boundaries(boundaries: Any) -> list[int]:
    if not isinstance(boundaries, (list, tuple)):
        raise TypeError(
            f"bucket_boundaries={boundaries!r} must be a list or tuple of ints, and not "
            f"{type(boundaries).__name__}"
        )
    if not boundaries:
        raise ValueError("bucket_boundaries must not be empty: with one bucket, use a plain batch")
    for boundary in boundaries:
        if isinstance(boundary, bool) or not isinstance(boundary, Integral):
            raise TypeError(f"bucket boundaries must be integers, but {boundary!r} is not")
    for first, second in pairwise(boundaries):
        if first >= second:
            raise ValueError(
                f"bucket_boundaries={boundaries!r} must be increasing, but {first} comes before "
                f"{second}: sort them, each once"
            )
    return [int(boundary) for boundary in boundaries]


def _one_per_bucket(what: str, values: Any, num_buckets: int) -> list[Any]:
    """Returns a value for each bucket, its own or the same for all; an int if it is known."""
    values = list(values) if isinstance(values, (list, tuple)) else [values] * num_buckets
    if len(values) != num_buckets:
        raise ValueError(
            f"{what} is a list of {len(values)}: it must have exactly num_buckets={num_buckets} "
            "entries, one for each bucket"
        )
    statics = [tf.get_static_value(tf.convert_to_tensor(value)) for value in values]
    known = [
        value if static is None else int(static)
        for value, static in zip(values, statics, strict=True)
    ]
    for value in known:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{what}={value}: expected at least 1")
    return known


def _element_shapes(
    elements: Sequence[Any], given: Any, names: Sequence[str] | None, dynamic_pad: bool
) -> list[tf.TensorShape]:
    """Returns the shapes of an element's tensors, which `given` may say, in order or by name."""
    if given is None:
        shapes = [element.shape for element in elements]
    else:
        if isinstance(given, Mapping) and names is not None:
            given = [given[name] for name in names]
        shapes = [tf.TensorShape(shape) for shape in given]
        if len(shapes) != len(elements):
            raise ValueError(
                f"shapes has {len(shapes)} entries, and tensors {len(elements)}: expected as many"
            )
    for element, shape in zip(elements, shapes, strict=True):
        if shape.rank is None or not (dynamic_pad or shape.is_fully_defined()):
            raise ValueError(
                f"the shape {shape} of {element.name} is not known well enough: All shapes must be "
                "fully defined (pass shapes=, or use set_shape), or with dynamic_pad=True at least "
                "their ranks"
            )
    return shapes


def _bucket_queues(
    capacities: Sequence[int],
    dtypes: Sequence[tf.DType],
    shapes: Sequence[tf.TensorShape],
    dynamic_pad: bool,
    shared_name: str | None,
) -> list[Any]:
    """Makes a queue of elements for each bucket; a `shared_name` of None shares none."""
    queue_class = tf.queue.PaddingFIFOQueue if dynamic_pad else tf.queue.FIFOQueue
    return [
        queue_class(
            capacity,
            dtypes=dtypes,
            shapes=shapes,
            shared_name=f"{shared_name}_{index}" if shared_name else None,
            name=f"bucket_queue_{index}",
        )
        for index, capacity in enumerate(capacities)
    ]


def _enqueue_into(
    queues: Sequence[Any], which_bucket: Any, keep_input: Any, elements: Sequence[Any]
) -> tf.Operation:
    """Returns an op that puts an element into its bucket, or drops it if that does not exist."""
    which = tf.cast(as_scalar(which_bucket, "which_bucket"), tf.int32)
    keep = as_scalar(tf.convert_to_tensor(keep_input, tf.bool), "keep_input")

    def enqueue(queue: Any) -> Callable[[], Any]:
        def branch() -> Any:
            with tf.control_dependencies([queue.enqueue(elements)]):
                return tf.constant(0)

        return branch

    # An index without a branch of its own takes the last one.
    branches = [*map(enqueue, queues), lambda: tf.constant(0)]
    index = tf.where(keep, which, len(queues))
    return tf.group(tf.switch_case(index, branches), name="enqueue_into_bucket")


def _top_queue(
    queues: Sequence[Any],
    batch_sizes: Sequence[Any],
    capacity: int,
    allow_smaller_final_batch: bool,
    shared_name: str | None,
) -> Any:
    """Makes the queue of batches, each with its bucket's index, and threads that feed it."""
    size = batch_sizes[0]
    if allow_smaller_final_batch or not all(isinstance(s, int) and s == size for s in batch_sizes):
        size = None
    # It never pads, but a batch of unknown size fits into no other kind of queue.
    top = tf.queue.PaddingFIFOQueue(
        capacity,
        dtypes=[tf.int32, *queues[0].dtypes],
        shapes=[[], *(tf.TensorShape([size]).concatenate(shape) for shape in queues[0].shapes)],
        shared_name=f"{shared_name}_top" if shared_name else None,
        name="top_queue",
    )
    enqueue_ops = []
    for index, (queue, batch_size) in enumerate(zip(queues, batch_sizes, strict=True)):
        dequeue = queue.dequeue_up_to if allow_smaller_final_batch else queue.dequeue_many
        batch = as_list(dequeue(batch_size, name=f"dequeue_bucket_{index}"))
        enqueue_ops.append(top.enqueue([tf.constant(index), *batch]))
        tf.compat.v1.summary.scalar(f"queue_{index}_size", queue.size())
    tf.compat.v1.summary.scalar("fraction_of_top_queue_full", top.size() / capacity)
    add_queue_runner(top, enqueue_ops)
    return top
