"""The op that makes one training step and gives the loss, in slim's form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ..training.train_ops import (
    Pair,
    after_updates,
    apply_and_return,
    clip_gradient_norms,
    multiply_gradients,
    step_counter,
    summarize,
    trained_variables,
)


def add_gradients_summaries(grads_and_vars: Iterable[Pair]) -> list[Any]:
    """Adds two summaries for each gradient: its histogram and its L2 norm.

    As `paramserve.contrib.training.add_gradients_summaries`, with tags that end with "/gradient"
    and "/gradient_norm".
    """
    return summarize(grads_and_vars, "/gradient")


def create_train_op(
    total_loss: Any,
    optimizer: tf.compat.v1.train.Optimizer,
    global_step: Any = 0,
    update_ops: Iterable[Any] | None = None,
    variables_to_train: Sequence[Any] | None = None,
    clip_gradient_norm: float = 0,
    summarize_gradients: bool = False,
    gate_gradients: int = tf.compat.v1.train.Optimizer.GATE_OP,
    aggregation_method: int | None = None,
    colocate_gradients_with_ops: bool = False,
    gradient_multipliers: Mapping[Any, Any] | None = None,
    check_numerics: bool = True,
) -> Any:
    """Creates the op that computes the gradients, applies them and returns the loss.

    Gradients are first multiplied, then clipped, then summarized. All arguments but two, the result
    and the errors are those of `paramserve.contrib.training.create_train_op`. The two are:

    * `clip_gradient_norm`: The largest L2 norm of a single gradient; 0 clips none.
    * `gradient_multipliers`: A dict from a variable, or the name of its op, to the factor of its
      gradient; None or an empty one multiplies none. A variable with a multiplier but without a
      gradient is a `ValueError`.
    """
    variables = trained_variables(variables_to_train)
    loss = after_updates(tf.convert_to_tensor(total_loss), update_ops)
    pairs = optimizer.compute_gradients(
        loss,
        variables,
        gate_gradients=gate_gradients,
        aggregation_method=aggregation_method,
        colocate_gradients_with_ops=colocate_gradients_with_ops,
    )
    if gradient_multipliers:
        with tf.name_scope("multiply_grads"):
            pairs = multiply_gradients(pairs, gradient_multipliers)
    if clip_gradient_norm and clip_gradient_norm > 0:
        with tf.name_scope("clip_grads"):
            pairs = clip_gradient_norms(pairs, clip_gradient_norm)
    if summarize_gradients:
        with tf.name_scope("summarize_grads"):
            add_gradients_summaries(pairs)
    return apply_and_return(loss, optimizer, pairs, step_counter(global_step), check_numerics)
