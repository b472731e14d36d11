"""The op that makes one training step and gives the loss, in slim's form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ..training.gradients import Pair, clip_gradient_norms, multiply_gradients, summarize
from ..training.train_ops import after_updates, apply_and_return, step_counter, trained_variables


def add_gradients_summaries(grads_and_vars: Iterable[Pair]) -> list[Any]:
    """Adds two summaries for each gradient: its histogram and its L2 norm.

    Their tags are the name of the variable's op with "/gradient" and "/gradient_norm" behind. A
    gradient of None is named in the log, at level INFO.

    Args:
        grads_and_vars: Pairs of gradient and variable.

    Returns:
        The summary ops, scalar string `Tensor`s, which also are in the graph's collection of
        summaries.
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

    Gradients are first multiplied, then clipped, then summarized.

    Args:
        total_loss: The loss to minimize, a scalar `Tensor`.
        optimizer: What computes and applies the gradients.
        global_step: The step counter that the op increments, None for no counter, or the int 0
            for the graph's own, which is made if there is none.
        update_ops: Ops to run before the loss is used, such as moving averages. None runs all of
            the collection `UPDATE_OPS`, an empty list none.
        variables_to_train: The variables to train; None trains all trainable ones.
        clip_gradient_norm: The largest L2 norm of a single gradient; 0 clips none.
        summarize_gradients: Whether to add summaries of the gradients as they are applied.
        gate_gradients: How much of the gradients is computed in parallel: `GATE_NONE`, `GATE_OP`
            or `GATE_GRAPH` of `tf.compat.v1.train.Optimizer`.
        aggregation_method: How gradients of the same variable are added, of
            `tf.compat.v1.AggregationMethod`.
        colocate_gradients_with_ops: Whether a gradient is computed where its op is.
        gradient_multipliers: A dict from a variable, or the name of its op, to the factor of its
            gradient; None or an empty one multiplies none.
        check_numerics: Whether a loss that is infinite or not a number makes the step fail with
            a `tf.errors.InvalidArgumentError`. The variables then stay as they were.

    Returns:
        A scalar `Tensor`: the loss before this step's change of the variables. It also is in the
        collection `TRAIN_OP`.

    Raises:
        AssertionError: There is no variable to train, or one of `variables_to_train` is not
            trainable.
        ValueError: The loss depends on none of the variables, or one with a multiplier has no
            gradient.
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
