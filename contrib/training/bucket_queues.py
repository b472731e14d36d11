"""The queues behind `bucket`: one for each bucket, and the one on top for their batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from .queue_elements import add_queue_runner, as_list, as_scalar


def one_per_bucket(what: str, values: Any, num_buckets: int) -> list[Any]:
    """Returns a value for each bucket, its own or the same for all; an int if it is known.

    Args:
        what: Name of the argument.
        values: A list or tuple of numbers or int32 scalar tensors, or a single one.
        num_buckets: Number of buckets.

    Raises:
        ValueError: There are not `num_buckets` of them, or one is less than 1.
    """
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


def element_shapes(
    elements: Sequence[Any], given: Any, names: Sequence[str] | None, dynamic_pad: bool
) -> list[tf.TensorShape]:
    """Returns the shapes of an element's tensors.

    Args:
        elements: The tensors.
        given: What the caller says their shapes are, or None.
        names: The names that `given` is by if it is a dictionary.
        dynamic_pad: Whether dimensions may be unknown.

    Raises:
        ValueError: Shapes are missing, or not known well enough.
    """
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


def bucket_queues(
    capacities: Sequence[int],
    dtypes: Sequence[tf.DType],
    shapes: Sequence[tf.TensorShape],
    dynamic_pad: bool,
    shared_name: str | None,
) -> list[Any]:
    """Makes a queue of elements for each bucket.

    Args:
        capacities: Number of elements in each.
        dtypes: Dtypes of an element's tensors.
        shapes: Shapes of an element's tensors.
        dynamic_pad: Whether dimensions that are unknown may vary.
        shared_name: Prefix of the names under which sessions share the queues; None shares none.
    """
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


def enqueue_into(
    queues: Sequence[Any], which_bucket: Any, keep_input: Any, elements: Sequence[Any]
) -> tf.Operation:
    """Returns an op that puts an element into its bucket.

    Args:
        queues: The buckets' queues.
        which_bucket: Index of the bucket, an integer scalar. With another index than those of
            `queues`, the element is dropped.
        keep_input: If not true, the element is dropped as well: a bool scalar.
        elements: The element's tensors.

    Raises:
        ValueError: `which_bucket` or `keep_input` is not a scalar.
    """
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


def top_queue(
    queues: Sequence[Any],
    batch_sizes: Sequence[Any],
    capacity: int,
    allow_smaller_final_batch: bool,
    shared_name: str | None,
) -> Any:
    """Makes the queue of batches, and threads that feed it from each bucket's queue.

    Args:
        queues: The buckets' queues.
        batch_sizes: Number of elements in a batch of each.
        capacity: Number of batches.
        allow_smaller_final_batch: Whether what is left at the end makes a batch.
        shared_name: Prefix of the name under which sessions share the queue; None does not.

    Returns:
        A queue whose elements are the bucket's index and a batch.
    """
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
