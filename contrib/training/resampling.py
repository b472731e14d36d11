"""Batches with elements repeated or dropped: `resample_at_rate`, `weighted_resample`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def resample_at_rate(
    inputs: Sequence[Any],
    rates: Any,
    scope: str | None = None,
    seed: int | None = None,
    back_prop: bool = False,
) -> list[Any]:
    """Repeats each element of a batch a random number of times, from a Poisson distribution.

    Copies of an element follow each other, and all inputs are resampled alike. An element with
    rate 2 comes twice on average, one with rate 0 never.

    Args:
        inputs: Tensors of shape [batch size, ...].
        rates: A tensor of shape [batch size], the expected number of copies, not negative.
        scope: Name scope of the ops.
        seed: Seed of the random numbers.
        back_prop: Whether gradients go through to `inputs`.

    Returns:
        A list of tensors as `inputs`, whose first dimension is unknown and may be 0.

    Raises:
        ValueError: `rates` is not a vector, or an input's first dimension is not its length.
        tf.errors.InvalidArgumentError: A rate is negative, or a shape that was unknown is wrong
            (when the result is evaluated).
    """
    with tf.compat.v1.name_scope(scope, "resample_at_rate"):
        rates = _as_floats(rates, "rates")
        tensors = [_with_batch_dimension(each, rates) for each in inputs]
        message = "rates must not be negative: they are expected numbers of copies"
        with tf.control_dependencies([_not_negative(rates, message)]):
            counts = tf.random.poisson([], tf.identity(rates), dtype=tf.int32, seed=seed)
        chosen = tf.repeat(tf.range(tf.size(counts)), counts)
        outputs = [tf.gather(each, chosen) for each in tensors]
        return outputs if back_prop else [tf.stop_gradient(output) for output in outputs]


def weighted_resample(
    inputs: Sequence[Any],
    weights: Any,
    overall_rate: Any,
    scope: str | None = None,
    mean_decay: float = 0.999,
    seed: int | None = None,
) -> tuple[list[Any], Any]:
    """Repeats elements of a batch in proportion to their weights.

    The rate of an element is `overall_rate * weight / mean weight`. The mean is a moving average
    over the batches so far, kept in a variable that is not trainable. Its start at zero is
    corrected for (Kingma and Ba, "Adam", https://arxiv.org/abs/1412.6980, section 3), so that the
    first batch's mean counts fully.

    Args:
        inputs: Tensors of shape [batch size, ...].
        weights: A tensor of shape [batch size], not negative.
        overall_rate: Expected number of copies of an element of mean weight.
        scope: Name scope of the ops and of the variable.
        mean_decay: Factor of the older batches' share in the mean weight in each batch, in [0, 1).
        seed: Seed of the random numbers.

    Returns:
        A list of tensors like `inputs`, whose first dimension is unknown and may be 0; and a tensor
        with the rate of each of their elements.

    Raises:
        ValueError: `weights` is not a vector, an input's first dimension is not its length, or
            `mean_decay` is out of range.
        tf.errors.InvalidArgumentError: A rate is negative (when the result is evaluated).
    """
    if not 0 <= mean_decay < 1:
        raise ValueError(f"mean_decay={mean_decay!r}: expected a number in [0, 1)")
    with tf.compat.v1.name_scope(scope, "weighted_resample"):
        weights = _as_floats(weights, "weights")
        mean = _moving_mean(tf.reduce_mean(weights), mean_decay)
        # Where all weights so far are 0, nothing is chosen.
        rates = tf.cast(overall_rate, weights.dtype) * tf.math.divide_no_nan(weights, mean)
        rates = tf.ensure_shape(rates, weights.shape)
        *resampled, chosen_rates = resample_at_rate([*inputs, rates], rates, seed=seed)
    return resampled, chosen_rates


def _moving_mean(value: Any, decay: float) -> Any:
    """Returns the moving mean of `value`, this one included."""
    # The decayed sum of values and the decayed count of them. In one variable, they cannot come
    # from different batches if several threads update it.
    moments = tf.compat.v1.Variable(
        tf.zeros([2], value.dtype), trainable=False, name="decayed_sum_and_count"
    )
    change = (1 - decay) * (tf.stack([value, tf.ones_like(value)]) - moments.read_value())
    decayed_sum, decayed_count = tf.unstack(tf.identity(moments.assign_add(change)))
    return decayed_sum / decayed_count


def _as_floats(values: Any, what: str) -> Any:
    tensor = tf.convert_to_tensor(values, name=what)
    if not tensor.dtype.is_floating:
        tensor = tf.cast(tensor, tf.float32)
    if tensor.shape.rank not in (1, None):
        raise ValueError(f"{what} has the shape {tensor.shape}: expected [batch size]")
    return tf.ensure_shape(tensor, [None])


def _with_batch_dimension(value: Any, rates: Any) -> Any:
    tensor = tf.convert_to_tensor(value)
    shape = tensor.shape
    if shape.rank == 0 or not shape[:1].is_compatible_with(rates.shape):
        raise ValueError(
            f"the input {tensor.name} has the shape {shape}, and there are {rates.shape} rates: "
            "expected the same batch size as first dimension"
        )
    return tensor


def _not_negative(values: Any, message: str) -> Any:
    return tf.debugging.Assert(tf.reduce_all(values >= 0), [message, values])
