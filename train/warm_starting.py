"""`warm_start`: with any initializer for the entries that the old vocabulary lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

Initializer = Callable[..., Any]


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
