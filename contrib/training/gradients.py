"""Transformations of gradients before they are applied: clipping, multipliers, summaries."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import tensorflow as tf

_logger = logging.getLogger(__name__)

# A gradient, which is a `tf.Tensor`, a `tf.IndexedSlices` or None, and the variable it is for.
Pair: TypeAlias = tuple[Any, Any]


def clip_gradient_norms(gradients_to_variables: Iterable[Pair], max_norm: float) -> list[Pair]:
    """Clips each gradient by itself to an L2 norm of at most `max_norm`.

    Args:
        gradients_to_variables: Pairs of gradient and variable, as `compute_gradients` gives them.
            A gradient of None stays None; of a `tf.IndexedSlices` the values are clipped, rows
            that come twice counting twice.
        max_norm: The largest norm, above 0: a number or a scalar `Tensor`.

    Returns:
        The pairs with the clipped gradients, in the same order.
    """
    return [
        (_with_values(gradient, lambda values: tf.clip_by_norm(values, max_norm)), variable)
        for gradient, variable in gradients_to_variables
    ]


def clip_gradient_norms_fn(max_norm: float) -> Callable[[Iterable[Pair]], list[Pair]]:
    """Returns a `transform_grads_fn` for `create_train_op` that clips; see `clip_gradient_norms`.

    Args:
        max_norm: The largest L2 norm that one gradient may have, above 0.
    """
    return lambda gradients_to_variables: clip_gradient_norms(gradients_to_variables, max_norm)


def multiply_gradients(
    grads_and_vars: list[Pair], gradient_multipliers: Mapping[Any, Any]
) -> list[Pair]:
    """Multiplies the gradients of some variables.

    Args:
        grads_and_vars: A list of pairs of gradient and variable, as `compute_gradients` gives it.
        gradient_multipliers: A dict from a variable, or from the name of its op such as
            "layer/kernel", to the factor: a number or a `Tensor`. Where both are given, the
            variable counts. A key that stands for no variable of the pairs has no effect.

    Returns:
        The pairs, in the same order; those without a factor as they were.

    Raises:
        ValueError: `grads_and_vars` is no list, `gradient_multipliers` is empty or no dict, or a
            variable with a factor has no gradient.
    """
    if not isinstance(grads_and_vars, list):
        raise ValueError(
            f"`grads_and_vars` must be a list, but is {grads_and_vars!r}: pass what "
            "compute_gradients() returned"
        )
    if not gradient_multipliers:
        raise ValueError("`gradient_multipliers` is empty: leave out the call if nothing changes")
    if not isinstance(gradient_multipliers, dict):
        raise ValueError(
            f"`gradient_multipliers` must be a dict, but is {gradient_multipliers!r}: give factors "
            "by variable or by op name"
        )
    factors = {_key(key): factor for key, factor in gradient_multipliers.items()}
    return [
        (_multiplied(gradient, variable, factors), variable)
        for gradient, variable in grads_and_vars
    ]


def add_gradients_summaries(grads_and_vars: Iterable[Pair]) -> list[Any]:
    """Adds two summaries for each gradient: its histogram and its L2 norm.

    Their tags are the name of the variable's op with "_gradient" and "_gradient_norm" behind. A
    gradient of None is named in the log, at level INFO.

    Args:
        grads_and_vars: Pairs of gradient and variable.

    Returns:
        The summary ops, scalar string `Tensor`s, which also are in the graph's collection of
        summaries.
    """
    return summarize(grads_and_vars, "_gradient")


def summarize(grads_and_vars: Iterable[Pair], suffix: str) -> list[Any]:
    """Adds the summaries of `add_gradients_summaries`, with another suffix to their tags."""
    summaries = []
    for gradient, variable in grads_and_vars:
        name = variable.op.name
        if gradient is None:
            _logger.info("The variable %s has no gradient.", name)
            continue
        values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
        summary = tf.compat.v1.summary
        summaries.append(summary.histogram(f"{name}{suffix}", values))
        summaries.append(summary.scalar(f"{name}{suffix}_norm", tf.linalg.global_norm([values])))
    return summaries


def held_back(grads_and_vars: Iterable[Pair], until: Any) -> list[Pair]:
    """Returns the pairs with gradients that are given out only when `until` was computed.

    Only the gradients wait. Were `apply_gradients` called under this control dependency, so would
    all else that an optimizer makes, such as the ops of a synchronous chief's queue runner.
    """

    def hold(values: Any) -> Any:
        with tf.compat.v1.colocate_with(values), tf.control_dependencies([until]):
            return tf.identity(values)

    return [(_with_values(gradient, hold), variable) for gradient, variable in grads_and_vars]


def _with_values(gradient: Any, change: Callable[[Any], Any]) -> Any:
    """Applies `change` to the numbers of a gradient, whatever kind it is."""
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(change(gradient.values), gradient.indices, gradient.dense_shape)
    return change(gradient)


def _key(key: Any) -> Any:
    # A variable compares with == elementwise in some modes; its reference never does.
    return key if isinstance(key, str) else key.ref()


def _multiplied(gradient: Any, variable: Any, factors: Mapping[Any, Any]) -> Any:
    keys = (key for key in (variable.ref(), variable.op.name) if key in factors)
    key = next(keys, None)
    if key is None:
        return gradient
    if gradient is None:
        raise ValueError(
            f"the variable {variable.op.name!r} has a multiplier but its gradient is `None`: the "
            "loss does not depend on it, so take it out of gradient_multipliers"
        )
    factor = factors[key]
    # A number takes the gradient's type without a detour through float32.
    factor = (
        tf.cast(factor, gradient.dtype)
        if tf.is_tensor(factor)
        else tf.convert_to_tensor(factor, gradient.dtype)
    )
    return _with_values(gradient, lambda values: values * factor)
