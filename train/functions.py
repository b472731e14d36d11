"""Functions that take variables of any kind, or any initializer, where TensorFlow's do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..loops.fetches import resolve

_REF_OPS = frozenset({"Variable", "VariableV2"})
Initializer = Callable[..., Any]
_KEY = tf.compat.v1.GraphKeys.GLOBAL_STEP


def string_input_producer(
    string_tensor: Any,
    num_epochs: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    capacity: int = 32,
    shared_name: str | None = None,
    name: str | None = None,
    cancel_op: Any = None,
) -> Any:
    """Puts strings, such as the names of files, into a queue.

    Takes the arguments of `tf.compat.v1.train.string_input_producer`, which refuses resource
    variables, and so the result of `match_filenames_once`.

    Args:
        string_tensor: The strings: a list, a tensor or variable of shape [n].
        num_epochs: How often each string is produced, counted in a local variable; None produces
            them without end.
        shuffle: Whether to shuffle them in each epoch.
        seed: The seed for that.
        capacity: Number of strings that fit in the queue.
        shared_name: If set, the queue is shared under this name between sessions.
        name: Name of the ops.
        cancel_op: Run when the queue is cancelled.

    Returns:
        The queue. A queue runner for it is in the collection `QUEUE_RUNNERS`.

    Raises:
        ValueError: The list is empty.
    """
    if isinstance(string_tensor, tf.Variable):
        string_tensor = string_tensor.read_value()
    return tf.compat.v1.train.string_input_producer(
        string_tensor, num_epochs, shuffle, seed, capacity, shared_name, name, cancel_op
    )


def sdca_shrink_l1(weights: Sequence[Any], l1: float, l2: float, name: str | None = None) -> Any:
    """Moves weights towards 0 by `l1 / l2`, and no further: `w = sign(w) * max(|w| - l1 / l2, 0)`.

    The last part of an iteration of stochastic dual coordinate ascent (Shalev-Shwartz and Zhang,
    "Accelerated Proximal Stochastic Dual Coordinate Ascent for Regularized Loss Minimization").
    TensorFlow's op takes ref variables only.

    Args:
        weights: Variables of type float32.
        l1: Strength of the L1 regularization.
        l2: Strength of the L2 regularization, more than 0.
        name: Name of the op.

    Returns:
        The op.
    """
    refs = [weight for weight in weights if weight.op.type in _REF_OPS]
    updates = [
        weight.assign(shrink(weight.read_value(), l1 / l2))
        for weight in weights
        if weight.op.type not in _REF_OPS
    ]
    if refs:
        updates.append(tf.compat.v1.train.sdca_shrink_l1(refs, l1=l1, l2=l2))
    return tf.group(updates, name=name)


def shrink(values: Any, amount: float) -> Any:
    """Moves a tensor's values towards 0 by `amount`, and no further."""
    return tf.sign(values) * tf.maximum(tf.abs(values) - amount, 0.0)


def warm_start(
    ckpt_to_initialize_from: str,
    vars_to_warm_start: str | Sequence[Any] | None = ".*",
    var_name_to_vocab_info: Mapping[str, tf.compat.v1.train.VocabInfo] | None = None,
    var_name_to_prev_var_name: Mapping[str, str] | None = None,
) -> None:
    """Starts variables with the values of a checkpoint, also after their vocabulary changed.

    Takes the arguments of `tf.compat.v1.train.warm_start`. There, `VocabInfo.backup_initializer`
    has to make as many values as the vocabularies differ in, which is known only when the graph
    runs. Constants and Glorot's initializer, the documented example, cannot do that.

    Args:
        ckpt_to_initialize_from: A checkpoint's path without suffix, or a directory with one.
        vars_to_warm_start: A regular expression for trainable variables, a list of regular
            expressions for global variables or of variables, or None for those with a vocabulary.
        var_name_to_vocab_info: The vocabularies of variables of shape [n, m], by the variable's
            name.
        var_name_to_prev_var_name: Their names in the checkpoint, where they differ.

    Raises:
        ValueError: A variable that is named is not warm-started.
    """
    infos = {
        name: info._replace(backup_initializer=_allow_any_count(name, info.backup_initializer))
        for name, info in (var_name_to_vocab_info or {}).items()
    }
    tf.compat.v1.train.warm_start(
        ckpt_to_initialize_from, vars_to_warm_start, infos, var_name_to_prev_var_name
    )


def _allow_any_count(name: str, initializer: Initializer | None) -> Initializer | None:
    """Wraps an initializer, so that it takes a shape which is known only when the graph runs."""
    if initializer is None:
        return None

    def initialize(shape: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return initializer(shape, *args, **kwargs)
        except (TypeError, ValueError, NotImplementedError):
            variable_shape = _full_shape(name)
            if variable_shape is None:
                raise
        # More values than a variable can need; the needed number is taken from them.
        values = tf.reshape(initializer(variable_shape), [-1])
        return tf.reshape(values[: tf.reduce_prod(shape)], shape)

    return initialize


def _full_shape(name: str) -> list[int] | None:
    """Returns the shape of a variable, or of all of its partitions together."""
    shapes = [
        variable.shape.as_list()
        for variable in tf.compat.v1.global_variables()
        if variable.op.name == name or variable.op.name.startswith(f"{name}/part_")
    ]
    if not shapes:
        return None
    return [sum(shape[0] for shape in shapes), *shapes[0][1:]]


def assert_global_step(global_step_tensor: Any) -> None:
    """Checks that something can be a global step.

    Args:
        global_step_tensor: A `Variable` or `Tensor`.

    Raises:
        TypeError: It is neither, or no scalar, or not of an integer type.
    """
    try:
        tf.compat.v1.train.assert_global_step(global_step_tensor)
    except TypeError as error:
        raise TypeError(
            f"{error} A global step is a scalar of an integer type: make one with "
            "get_or_create_global_step()"
        ) from None


def get_global_step(graph: tf.Graph | None = None) -> Any:
    """Returns the global step of a graph, or None.

    It is the element of the collection `GLOBAL_STEP`, or else the variable (or tensor) with the
    name "global_step". TensorFlow takes the handle of a resource variable for a number, and raises
    `TypeError`.

    Args:
        graph: The graph; the default graph if None.

    Raises:
        TypeError: The element cannot be a global step.
    """
    graph = tf.compat.v1.get_default_graph() if graph is None else graph
    if not graph.get_collection(_KEY):
        for variable in graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES):
            if variable.op.name == _KEY:
                assert_global_step(variable)
                return variable
    return tf.compat.v1.train.get_global_step(graph)


def create_global_step(graph: tf.Graph | None = None) -> Any:
    """Makes the global step of a graph: a variable of type int64, with the value 0.

    Args:
        graph: Where to make it; the default graph if None.

    Raises:
        ValueError: There is one already.
    """
    if get_global_step(graph) is not None:
        raise ValueError(
            '"global_step" already exists. Use get_or_create_global_step() to have it if so'
        )
    return tf.compat.v1.train.create_global_step(graph)


def get_or_create_global_step(graph: tf.Graph | None = None) -> Any:
    """Returns the global step of a graph, made if there was none.

    A global step found by its name is in the collection `GLOBAL_STEP` afterwards, where
    TensorFlow's hooks find it too.

    Args:
        graph: The graph; the default graph if None.

    Raises:
        TypeError: The element cannot be a global step.
    """
    graph = tf.compat.v1.get_default_graph() if graph is None else graph
    step = get_global_step(graph)
    if step is None:
        return tf.compat.v1.train.create_global_step(graph)
    if not graph.get_collection(_KEY):
        graph.add_to_collection(_KEY, step)
    return step


def global_step(sess: tf.compat.v1.Session | None, global_step_tensor: Any) -> int:
    """Reads the value of a global step.

    Args:
        sess: The session; None for a step of eager execution.
        global_step_tensor: The global step, or its name in the session's graph.

    Raises:
        TypeError: It is no scalar.
    """
    # Not for whether eager execution is on: it always is in a new thread, graph or not.
    if sess is None:
        value = global_step_tensor.numpy()
    else:
        value = sess.run(resolve(sess.graph, global_step_tensor))
    if np.ndim(value) != 0:
        name = getattr(global_step_tensor, "name", global_step_tensor)
        raise TypeError(
            f"the global step {name!r} is not scalar, it has the shape {np.shape(value)}: make "
            "one with get_or_create_global_step()"
        )
    return int(value)
