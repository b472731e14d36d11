"""Probabilities of acceptance of `stratified_sample`, computed from proportions of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

# How far a sum of probabilities may be from 1.
SUM_TOLERANCE = 1e-6
# As how often seen each class counts before the first element, for the estimated proportions.
PRIOR_COUNT = 10
# From which share of dropped elements on there is a warning.
HIGH_REJECTION = 0.5


def as_probabilities(values: Any, what: str, like: Any = None) -> Any:
    """Converts the proportions of classes to a checked tensor.

    Args:
        values: A vector of known length: not negative, sum 1 within `SUM_TOLERANCE`.
        what: Name of the argument.
        like: Probabilities of the same classes, already converted; None if there are none.

    Returns:
        A float tensor of shape [number of classes].

    Raises:
        ValueError: The shape is wrong, or values that are known are.
        tf.errors.InvalidArgumentError: Other values are wrong (when the result is evaluated).
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


def check_zero_classes(initial: Any, target: Any) -> Any:
    """Returns `initial`, once it is clear that no class is wanted that does not come.

    Raises:
        ValueError: A class has probability 0 in `initial` and more in `target`, both known.
        tf.errors.InvalidArgumentError: As before, when the result is evaluated.
    """
    message = "a class with zero initial probability must have zero target probability, init_probs:"
    statics = tf.get_static_value(initial), tf.get_static_value(target)
    if statics[0] is not None and statics[1] is not None:
        _check_static(bool(((statics[0] > 0) | (statics[1] == 0)).all()), message, statics[0])
    return _checked(initial, tf.reduce_all((initial > 0) | tf.equal(target, 0)), message)


def running_estimate(label: Any, num_classes: int) -> Any:
    """Counts the element of class `label`, and estimates the proportions of the classes.

    Args:
        label: An integer scalar tensor in [0, num_classes).
        num_classes: Number of classes.

    Returns:
        A float32 tensor of shape [num_classes], the share of each class in what was counted, plus
        `PRIOR_COUNT` for each.
    """
    counts = tf.compat.v1.Variable(
        tf.fill([num_classes], tf.constant(PRIOR_COUNT, tf.int64)),
        trainable=False,
        name="class_count",
    )
    seen = tf.identity(counts.assign_add(tf.one_hot(label, num_classes, dtype=tf.int64)))
    return tf.cast(seen / tf.reduce_sum(seen), tf.float32)


def acceptance_probabilities(initial: Any, target: Any) -> Any:
    """Returns with which probability an element of each class is accepted.

    Rejection sampling: accepting class i with a(i), the share of class i in what is accepted is
    proportional to initial(i) a(i). So a(i) is target(i) / initial(i), divided by its maximum.

    Args:
        initial: Proportions of the classes in the input, shape [number of classes].
        target: Proportions wanted, same shape.
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
