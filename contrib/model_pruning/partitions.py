"""Partitioned variables, and how they are read and written as a whole."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ...tf_internals import PartitionedVariable


def is_partitioned(x: Any) -> bool:
    """Returns whether `x` is what `get_variable` returns under a partitioner."""
    return isinstance(x, PartitionedVariable)


def slices(x: Any) -> list[Any]:
    """Returns the variables that make up `x`: its slices in order, or `x` itself if it is whole."""
    return list(x) if is_partitioned(x) else [x]


def op_name(x: Any) -> str:
    """Returns the name of `x` for regular expressions: without ":0", and without slices."""
    return str(x.name) if is_partitioned(x) else str(x.op.name)


def partition_axis(x: Any) -> int:
    """Returns the axis along which `x` is cut; 0 if there is one slice only.

    Raises:
      ValueError: `x` is cut along more than one axis.
    """
    cut = [
        axis
        for axis, size in enumerate(x.shape.as_list())
        if any(part.shape.as_list()[axis] != size for part in x)
    ]
    if len(cut) > 1:
        raise ValueError(
            f"{x.name!r} is partitioned along the axes {cut}: only one axis is possible here"
        )
    return cut[0] if cut else 0


def partitions(x: Any) -> list[int]:
    """Returns the number of slices along each axis, as a partitioner returns it.

    Raises:
      ValueError: `x` is cut along more than one axis.
    """
    counts = [1] * x.shape.rank
    counts[partition_axis(x)] = len(slices(x))
    return counts


def read(x: Any) -> tf.Tensor:
    """Reads a variable (or slices, joined) again, after the control dependencies in force.

    `tf.convert_to_tensor` of a reference variable returns one and the same tensor each time, which
    does not wait for a training op in the same run. Tensors and numbers stay as they are.
    """
    values = [part.read_value() if isinstance(part, tf.Variable) else part for part in slices(x)]
    if len(values) == 1:
        return tf.convert_to_tensor(values[0])
    return tf.concat(values, partition_axis(x))


def partitioned_variable_assign(var: Any, new_value: tf.Tensor) -> tf.Operation:
    """Assigns a whole tensor to a partitioned variable, each slice its part.

    Args:
      var: A partitioned variable, cut along one axis.
      new_value: A tensor of the shape and the dtype of the whole.

    Returns:
      The op that assigns.

    Raises:
      ValueError: `var` is cut along more than one axis.
    """
    axis = partition_axis(var)
    parts = slices(var)
    values = tf.split(new_value, [part.shape.as_list()[axis] for part in parts], axis)
    pairs = zip(parts, values, strict=True)
    return tf.group(*[part.assign(value, read_value=False) for part, value in pairs])


def assign(x: Any, new_value: tf.Tensor) -> tf.Operation:
    """Assigns to a variable, whole or partitioned."""
    if is_partitioned(x):
        return partitioned_variable_assign(x, new_value)
    return x.assign(new_value, read_value=False)
