"""The op that makes one training step and gives the loss, and its changes of gradients."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from ...data_plane.graph_collections import forget_unrunnable

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
            f"`grads_and_vars` must be a list, but is {grads_and_vars!r}: pass the result of "
            "compute_gradients()"
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


def create_train_op(
    total_loss: Any,
    optimizer: tf.compat.v1.train.Optimizer,
    global_step: Any = 0,
    update_ops: Iterable[Any] | None = None,
    variables_to_train: Sequence[Any] | None = None,
    transform_grads_fn: Callable[[list[Pair]], Iterable[Pair]] | None = None,
    summarize_gradients: bool = False,
    gate_gradients: int = tf.compat.v1.train.Optimizer.GATE_OP,
    aggregation_method: int | None = None,
    colocate_gradients_with_ops: bool = False,
    check_numerics: bool = True,
) -> Any:
    """Creates the op that computes the gradients, applies them and returns the loss.

    Example::

        with tf.Graph().as_default():
            loss = build_model()
            optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.1)
            train_op = create_train_op(
                loss, optimizer, transform_grads_fn=clip_gradient_norms_fn(5.0)
            )
            stop = tf.compat.v1.train.StopAtStepHook(last_step=1000)
            last_loss = train(train_op, "/tmp/model", hooks=[stop])

    Args:
        total_loss: The loss to minimize, a scalar `Tensor`.
        optimizer: Computes and applies the gradients.
        global_step: The step counter that the op increments; None for no counter; the int 0 for the
            graph's own, which is made if there is none.
        update_ops: Ops to run before the loss is used, such as moving averages. None runs all of
            the collection `UPDATE_OPS`, an empty list none.
        variables_to_train: The variables to train; None trains all trainable ones.
        transform_grads_fn: Takes the list of pairs of gradient and variable and returns the pairs
            to apply, such as `clip_gradient_norms_fn(5.0)`.
        summarize_gradients: Whether to add summaries of the applied gradients.
        gate_gradients: How much of the gradients is computed in parallel: `GATE_NONE`, `GATE_OP`
            or `GATE_GRAPH` of `tf.compat.v1.train.Optimizer`.
        aggregation_method: How gradients of the same variable are added, of
            `tf.compat.v1.AggregationMethod`.
        colocate_gradients_with_ops: Whether a gradient is computed where its op is.
        check_numerics: Whether a loss that is infinite or not a number makes the step fail with
            a `tf.errors.InvalidArgumentError`. The variables are then unchanged.

    Returns:
        A scalar `Tensor`: the loss before this step's change of the variables. It also is in the
        collection `TRAIN_OP`.

    Raises:
        AssertionError: There is no variable to train, or one of `variables_to_train` is not
            trainable.
        ValueError: The loss depends on none of the variables.
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
    if transform_grads_fn is not None:
        pairs = list(transform_grads_fn(pairs))
    if summarize_gradients:
        with tf.name_scope("summarize_grads"):
            add_gradients_summaries(pairs)
    return apply_and_return(loss, optimizer, pairs, step_counter(global_step), check_numerics)


def step_counter(global_step: Any) -> Any:
    """Returns the counter that `create_train_op`'s argument `global_step` stands for, or None."""
    if isinstance(global_step, int) and global_step == 0:
        return tf.compat.v1.train.get_or_create_global_step()
    return global_step


def trained_variables(variables: Sequence[Any] | None) -> list[Any]:
    """Returns the variables to train; see `create_train_op` for the argument and the errors."""
    trainable = tf.compat.v1.trainable_variables()
    if variables is None:
        variables = trainable
    collected = {id(variable) for variable in trainable}
    for variable in variables:
        if not variable.trainable and id(variable) not in collected:
            raise AssertionError(
                f"variables_to_train has {variable.op.name!r}, which is not trainable: make it "
                "with trainable=True, or leave it out"
            )
    if not variables:
        raise AssertionError("there are no variables to train: the model needs a trainable one")
    return list(variables)


def after_updates(loss: Any, update_ops: Iterable[Any] | None) -> Any:
    """Returns `loss`, given out only when the update ops have run; None takes `UPDATE_OPS`."""
    forget_unrunnable(loss.graph, tf.compat.v1.GraphKeys.UPDATE_OPS)
    collected = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.UPDATE_OPS)
    wanted = collected if update_ops is None else list(update_ops)
    ids = {id(op) for op in wanted}
    left_out = [getattr(op, "name", op) for op in collected if id(op) not in ids]
    if left_out:
        _logger.warning(
            "update_ops leaves out of the collection UPDATE_OPS: %s; values that they update, "
            "such as moving averages, will not move.",
            ", ".join(map(str, left_out)),
        )
    if not wanted:
        return loss
    with tf.control_dependencies(wanted):
        barrier = tf.no_op(name="update_barrier")
    with tf.control_dependencies([barrier]):
        return tf.identity(loss)


def apply_and_return(
    loss: Any,
    optimizer: tf.compat.v1.train.Optimizer,
    pairs: Iterable[Pair],
    global_step: Any,
    check_numerics: bool,
) -> Any:
    """Returns the loss once the gradients are applied, and adds that to `TRAIN_OP`."""
    if check_numerics:
        loss = tf.debugging.check_numerics(loss, "LossTensor is inf or nan")
        pairs = held_back(pairs, loss)
    update = optimizer.apply_gradients(pairs, global_step=global_step)
    with tf.name_scope("train_op"), tf.control_dependencies([update]):
        train_op = tf.identity(loss, name="loss")
    tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.TRAIN_OP, train_op)
    return train_op
