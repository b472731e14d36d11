"""`ExponentialMovingAverage`: also of ref variables in version 2 and of collected losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ..tf_internals import create_slot, set_initializer

# The only way to have the shadow variables named, placed and sliced as TensorFlow does it.

_REF_OPS = frozenset({"Variable", "VariableV2"})


class ExponentialMovingAverage(tf.compat.v1.train.ExponentialMovingAverage):
    """Moving averages of variables: `average -= (1 - decay) * (average - variable)`.

    Takes the arguments of `tf.compat.v1.train.ExponentialMovingAverage`. There, a conditional gives
    the initial value of a ref variable's average. With control flow of version 2, it reads the
    variable before it knows whether that is initialized. The losses of
    `get_variable(regularizer=...)` are refused there as well.

    Args:
        decay: Share of the average that stays, a number or scalar tensor in (0, 1).
        num_updates: Number of steps so far, or None. If given, the decay is at most
            `(1 + num_updates) / (10 + num_updates)`.
        zero_debias: Whether to correct the averages of tensors, which start at 0.
        name: Name of the averages.
    """

    def apply(self, var_list: Sequence[Any] | None = None) -> Any:
        """Makes the averages, and an op that updates them.

        Args:
            var_list: Variables or tensors of floating-point types; all trainable variables if None.

        Returns:
            The op.

        Raises:
            TypeError: A variable is of another type.
        """
        if var_list is None:
            var_list = tf.compat.v1.trainable_variables()
        var_list = [_tensor(each) for each in var_list]
        if tf.compat.v1.control_flow_v2_enabled():
            for variable in var_list:
                if self._lacks(variable):
                    self._averages[variable.ref()] = self._make_average(variable)
        return super().apply(var_list)

    def average(self, var: Any) -> Any:
        """Returns the variable with the average of a variable or tensor; None if it has none."""
        return super().average(_tensor(var))

    def average_name(self, var: Any) -> Any:
        """Returns the name of that variable, whether or not it is made yet."""
        return super().average_name(_tensor(var))

    def _lacks(self, variable: Any) -> bool:
        return (
            isinstance(variable, tf.Variable)
            and not tf.executing_eagerly()
            and variable.op.type in _REF_OPS
            and variable.dtype.is_floating
            and self.average(variable) is None
        )

    def _make_average(self, variable: Any) -> Any:
        key = tf.compat.v1.GraphKeys.MOVING_AVERAGE_VARIABLES
        with tf.init_scope():
            average = create_slot(
                variable,
                variable.initial_value,
                self.name,
                colocate_with_primary=True,
                copy_xla_sharding=True,
            )
            with tf.compat.v1.colocate_with(average.op):
                initializer = average.assign(_initialized_value(variable)).op
            # As an initial value, TensorFlow would put a conditional in the variable's place.
            set_initializer(average, initializer)
            tf.compat.v1.add_to_collection(key, variable)
        return average


def _tensor(value: Any) -> Any:
    """Returns the tensor of a regularization loss, which TensorFlow collects as a stand-in."""
    return value if hasattr(value, "ref") else value.op.outputs[value.value_index]


def _initialized_value(variable: Any) -> Any:
    """Returns the variable's value, or its initial value if it has none yet."""
    is_initialized = tf.compat.v1.is_variable_initialized(variable)
    # These ops accept an uninitialized variable, unlike a conditional of control flow v2.
    switched = tf.raw_ops.RefSwitch(data=variable.op.outputs[0], pred=is_initialized)
    initial = tf.raw_ops.Switch(data=variable.initial_value, pred=is_initialized)
    value = tf.raw_ops.Merge(
        inputs=[initial.output_false, tf.identity(switched.output_true)]
    ).output
    value.set_shape(variable.shape)
    return value
