"""Batches of elements that are accepted by chance: `rejection_sample` and `stratified_sample`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .queue_elements import as_list, as_tensors, require_graph


def rejection_sample(
    tensors: Any,
    accept_prob_fn: Callable[[list[Any]], Any],
    batch_size: int,
    queue_threads: int = 1,
    enqueue_many: bool = False,
    prebatch_capacity: int = 16,
    prebatch_threads: int = 1,
    runtime_checks: bool = False,
    name: str | None = None,
) -> list[Any]:
    """Batches elements each of which is accepted with its own probability.

    One queue runner, or two with `enqueue_many`, are added to the graph. The results raise
    `tf.errors.OutOfRangeError` when the input has ended; a last batch that is not full is dropped.

    Example::

        def accept_prob_fn(tensors):
            _, label = tensors
            return tf.where(label > 0, 1.0, 0.1)

        image, label = rejection_sample([image, label], accept_prob_fn, batch_size=32)

    Args:
        tensors: A list of tensors: one element or, with `enqueue_many`, a batch.
        accept_prob_fn: Takes the tensors of one element, and returns the probability with which it
            is accepted: a float scalar tensor in [0, 1].
        batch_size: Number of elements in a batch.
        queue_threads: Number of threads that judge elements.
        enqueue_many: Whether `tensors` have a batch dimension.
        prebatch_capacity: Number of elements that wait to be judged; only with `enqueue_many`.
        prebatch_threads: Number of threads that fetch them; only with `enqueue_many`.
        runtime_checks: Whether to check each probability.
        name: Name scope of the ops.

    Returns:
        A list of tensors as `tensors`, with the shape [batch_size, ...].

    Raises:
        TypeError: `tensors` is no list.
        ValueError: `tensors` is empty, `enqueue_many` is true and the tensors have different
            batch sizes, or the probability is not a scalar.
        RuntimeError: Eager execution is on.
        tf.errors.InvalidArgumentError: A probability is not in [0, 1], if `runtime_checks` (in the
            queue runner's thread).
    """
    require_graph("rejection_sample")
    with tf.compat.v1.name_scope(name, "rejection_sample"):
        elements = as_tensors(tensors, "rejection_sample")
        if enqueue_many:
            _check_batch_sizes(elements)
            elements = _one_by_one(elements, prebatch_threads, prebatch_capacity)
        probability = tf.convert_to_tensor(accept_prob_fn(elements))
        if not probability.dtype.is_floating:
            probability = tf.cast(probability, tf.float32)
        if probability.shape.rank not in (0, None):
            raise ValueError(
                f"accept_prob_fn returned the shape {probability.shape}: expected a scalar, the "
                "probability of one element"
            )
        probability = tf.ensure_shape(probability, [])
        if runtime_checks:
            in_range = (probability >= 0) & (probability <= 1)
            message = "accept_prob_fn returned a probability that is not in [0, 1]:"
            with tf.control_dependencies([tf.debugging.Assert(in_range, [message, probability])]):
                probability = tf.identity(probability, name="prob_with_checks")
        return _batch_accepted(elements, probability, batch_size, queue_threads)


def stratified_sample(
    tensors: Any,
    labels: Any,
    target_probs: Any,
    batch_size: int,
    init_probs: Any = None,
    enqueue_many: bool = False,
    queue_capacity: int = 16,
    threads_per_queue: int = 1,
    name: str | None = None,
) -> tuple[list[Any], Any]:
    """Batches elements so that classes come in given proportions, by dropping some elements.

    The most wanted class (that with the greatest `target_probs / init_probs`) is always accepted,
    the others in proportion. Two queue runners are added to the graph. The results raise
    `tf.errors.OutOfRangeError` when the input has ended; a last batch that is not full is dropped.
    If at least half of the elements are dropped, standard error says so, up to 10 times.

    Args:
        tensors: A list of tensors: one element or, with `enqueue_many`, a batch.
        labels: The class of the element, an integer scalar tensor in [0, number of classes) (not
            one-hot); with `enqueue_many` one for each element of the batch.
        target_probs: Proportions of the classes in the result: a vector of known length, sum 1.
        batch_size: Number of elements in a batch.
        init_probs: Proportions of the classes in the input, of the same length. With None they are
            estimated: each class counts as seen 10 times at the start, and each element is counted
            when it is judged. The counts are in a variable that is not trainable.
        enqueue_many: Whether `tensors` and `labels` have a batch dimension.
        queue_capacity: Number of elements that wait to be judged.
        threads_per_queue: Number of threads that fetch elements, and of those that judge them.
        name: Name scope of the ops.

    Returns:
        A list of tensors as `tensors`, with the shape [batch_size, ...], and the labels, a tensor
        of shape [batch_size].

    Raises:
        TypeError: `tensors` is no list, or `labels` are no integers.
        ValueError: `tensors` is empty; `labels` is not a scalar, or with
            `enqueue_many` not a vector; batch sizes differ; probabilities are no vectors of known
            and equal length, have negative entries or do not sum to 1 within 1e-6; or a class with
            probability 0 in the input is wanted.
        RuntimeError: Eager execution is on.
        tf.errors.InvalidArgumentError: A label is out of range. Or a shape or probabilities,
            unknown before, are wrong in one of these ways (in a queue runner's thread).
    """
    require_graph("stratified_sample")
    with tf.compat.v1.name_scope(name, "stratified_sample"):
        elements = as_tensors(tensors, "stratified_sample")
        classes = _checked_labels(labels, enqueue_many)
        target = _as_probabilities(target_probs, "target_probs")
        if not enqueue_many:
            elements, classes = [each[tf.newaxis] for each in elements], classes[tf.newaxis]
        _check_batch_sizes([*elements, classes])
        classes = _in_range(classes, target.shape.num_elements())
        *elements, label = _one_by_one([*elements, classes], threads_per_queue, queue_capacity)
        if init_probs is None:
            initial = _running_estimate(label, target.shape.num_elements())
        else:
            initial = _as_probabilities(init_probs, "init_probs", like=target)
            initial = _check_zero_classes(initial, target)
        probability = tf.gather(acceptance_probabilities(initial, target), label)
        *batch, batch_labels = _batch_accepted(
            [*elements, label], probability, batch_size, threads_per_queue
        )
    return batch, batch_labels


def _one_by_one(batches: list[Any], threads: int, capacity: int) -> list[Any]:
    """Puts batches into a queue, and takes single elements out of it."""
    queued = tf.compat.v1.train.batch(
        batches, batch_size=1, num_threads=threads, capacity=capacity, enqueue_many=True
    )
    return [tf.squeeze(each, [0]) for each in as_list(queued)]


def _batch_accepted(
    elements: list[Any], probability: Any, batch_size: int, threads: int
) -> list[Any]:
    """Batches elements that are accepted with `probability`."""
    accepted = tf.random.uniform([], dtype=probability.dtype) < probability
    batch = tf.compat.v1.train.maybe_batch(elements, accepted, batch_size, num_threads=threads)
    return as_list(batch)


def _check_batch_sizes(batches: list[Any]) -> None:
    expected = tf.TensorShape([None])
    for batch in batches:
        if batch.shape.rank == 0:
            raise ValueError(f"{batch.name} is a scalar: with enqueue_many=True, expected a batch")
        if not batch.shape[:1].is_compatible_with(expected):
            raise ValueError(
                f"{batch.name} has the shape {batch.shape}, and others have {expected} "
                "elements: expected the same batch dimension in tensors and labels"
            )
        expected = expected.merge_with(batch.shape[:1])


def _checked_labels(labels: Any, enqueue_many: bool) -> Any:
    labels = tf.convert_to_tensor(labels, name="labels")
    if not labels.dtype.is_integer:
        raise TypeError(f"labels must be integers, and not {labels.dtype.name}: cast them")
    shape = tf.TensorShape([None] if enqueue_many else [])
    if not labels.shape.is_compatible_with(shape):
        raise ValueError(
            f"labels has the shape {labels.shape}: with enqueue_many={enqueue_many}, expected "
            + ("a vector" if enqueue_many else "a scalar")
        )
    return tf.ensure_shape(labels, shape)


def _in_range(labels: Any, num_classes: int) -> Any:
    in_range = tf.reduce_all((labels >= 0) & (labels < num_classes))
    message = f"labels must be in [0, {num_classes}), the range of target_probs:"
    with tf.control_dependencies([tf.debugging.Assert(in_range, [message, labels])]):
        return tf.identity(labels)


# How far a sum of probabilities may be from 1.
SUM_TOLERANCE = 1e-6
# As how often seen each class counts before the first element, for the estimated proportions.
PRIOR_COUNT = 10
# From which share of dropped elements on there is a warning.
HIGH_REJECTION = 0.5


def _as_probabilities(values: Any, what: str, like: Any = None) -> Any:
    """Converts the proportions of classes to a checked tensor.

    `like` has probabilities of the same classes, already converted, if there are any.
    """
    tensor = tf.convert_to_tensor(values, name=what)
    tensor = tensor if tensor.dtype.is_floating else tf.cast(tensor, tf.float32)
    count = tensor.shape.num_elements()
    if tensor.shape.rank != 1 or not count:
        raise ValueError(
            f"{what} has the shape {tensor.shape}: expected a vector whose length, the number of "
            "classes, is known"
        )
    if like is not None:
        if like.shape.num_elements() != count:
            raise ValueError(
                f"{what} has {count} entries, and target_probs {like.shape.num_elements()}: "
                "expected one for each class"
            )
        tensor = tf.cast(tensor, like.dtype)
    # Summed up in float64, since rounding alone may exceed the tolerance where classes are many.
    distance = tf.abs(tf.reduce_sum(tf.cast(tensor, tf.float64)) - 1)
    valid = tf.reduce_all(tensor >= 0) & (distance < SUM_TOLERANCE)
    message = f"{what} must be probabilities: not negative, and sum to one:"
    static = tf.get_static_value(tensor)
    if static is not None:
        off = abs(static.sum(dtype=np.float64) - 1)
        _check_static(bool((static >= 0).all()) and off < SUM_TOLERANCE, message, static)
    return _checked(tensor, valid, message)


def _check_zero_classes(initial: Any, target: Any) -> Any:
    """Returns `initial`, once it is clear that no class is wanted that does not come."""
    message = "a class with zero initial probability must have zero target probability, init_probs:"
    statics = tf.get_static_value(initial), tf.get_static_value(target)
    if statics[0] is not None and statics[1] is not None:
        _check_static(bool(((statics[0] > 0) | (statics[1] == 0)).all()), message, statics[0])
    return _checked(initial, tf.reduce_all((initial > 0) | tf.equal(target, 0)), message)


def _running_estimate(label: Any, num_classes: int) -> Any:
    """Counts the element of class `label`, and estimates the proportions of the classes.

    The estimate is the share of each class in the counted elements, plus `PRIOR_COUNT` for each.
    """
    counts = tf.compat.v1.Variable(
        tf.fill([num_classes], tf.constant(PRIOR_COUNT, tf.int64)),
        trainable=False,
        name="class_count",
    )
    seen = tf.identity(counts.assign_add(tf.one_hot(label, num_classes, dtype=tf.int64)))
    return tf.cast(seen / tf.reduce_sum(seen), tf.float32)


def acceptance_probabilities(initial: Any, target: Any) -> Any:
    """Returns the probability with which an element of each class is accepted.

    Rejection sampling: accepting class i with a(i), the share of class i among the accepted
    elements is proportional to initial(i) a(i). So a(i) is target(i) / initial(i), divided by its
    maximum.
    """
    ratio = tf.math.divide_no_nan(target, tf.cast(initial, target.dtype))
    accepted = ratio / tf.reduce_max(ratio)
    rejected = 1 - tf.reduce_sum(tf.cast(initial, target.dtype) * accepted)
    message = "Proportion of examples rejected by sampler is high (share, acceptance by class): "

    def warn() -> Any:
        # The raw op, since `tf.print` cannot stop after some times.
        return tf.raw_ops.Print(
            input=accepted,
            data=[rejected, accepted],
            message=message,
            first_n=10,
            summarize=100,
        )

    return tf.compat.v1.cond(rejected < HIGH_REJECTION, lambda: accepted, warn)


def _check_static(valid: bool, message: str, values: Any) -> None:
    if not valid:
        raise ValueError(f"{message} {values}")


def _checked(tensor: Any, valid: Any, message: str) -> Any:
    with tf.control_dependencies([tf.debugging.Assert(valid, [message, tensor], summarize=100)]):
        return tf.identity(tensor)
