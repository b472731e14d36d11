"""The mean of gradients of which each touches a few rows of a variable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..tensors import Operation, Tensor, Variable

v1 = tf.compat.v1
# Where no row is, if the variable's rows are not known.
_BEYOND = 2**62


@dataclass(frozen=True)
class Leftover:
    """What an accumulator still holds.

    Attributes:
        count: int32 scalar: gradients in it.
        drop: Drops them; it waits while there are none.
    """

    count: Tensor
    drop: Operation


class SparseMean:
    """The mean of the workers' gradients of a variable of which each touches a few rows.

    TensorFlow's sparse accumulators merge two gradients as if both had their rows in order and
    once, and divide a row by the workers that touched it. So rows are summed and ordered before,
    the accumulator sums, and the division is ours. The workers are counted in a row of their own,
    beyond the last, so that sum and count are of the same gradients. Types of 16 bits cross as
    they are, and are summed as float32.

    Args:
        gradient: This worker's `tf.IndexedSlices`, in any order.
        variable: Its variable, with at least one dimension.
        name: What the accumulator's shared name begins with.
    """

    def __init__(self, gradient: Any, variable: Variable, name: str) -> None:
        self._gradient, self._device, self._shape = gradient, variable.device, variable.shape
        rows = variable.shape.as_list()[0]
        self._count_row = _BEYOND if rows is None else rows
        with v1.device(self._device):
            self._accumulator = v1.SparseConditionalAccumulator(
                dtype_of_sums(gradient.dtype),
                shape=None,
                shared_name=f"{name}/{variable.op.name}/rows",
                reduction_type="SUM",
            )

    def push(self, step: Tensor) -> list[Operation]:
        """Hands the gradient over; see `GradientAccumulators.push`."""
        with v1.device(self._gradient.values.device):
            slices = _by_row(self._gradient, self._count_row)
        with v1.device(self._device):
            values = tf.cast(slices.values, dtype_of_sums(slices.dtype))
            slices = tf.IndexedSlices(values, slices.indices)
            return [self._accumulator.apply_indexed_slices_grad(slices, local_step=step)]

    def take(self, replicas: int | Tensor) -> list[Any]:
        """The mean of `replicas` gradients or more, as `tf.IndexedSlices` with rows in order."""
        with v1.device(self._device):
            taken = self._accumulator.take_indexed_slices_grad(replicas)
            count = tf.reshape(taken.values[-1], [-1])[0]
            mean = tf.cast(taken.values[:-1] / count, self._gradient.dtype)
            rows = taken.indices[:-1]
            rows.set_shape([None])
            mean.set_shape(rows.shape.concatenate(self._shape[1:]))
            # An optimizer may want the gradient as a tensor.
            is_known = self._shape.is_fully_defined()
            shape = tf.constant(self._shape.as_list(), tf.int64) if is_known else None
            return [tf.IndexedSlices(mean, rows, shape)]

    def start(self, step: Tensor) -> list[Operation]:
        """Has gradients from before `step` dropped."""
        with v1.device(self._device):
            return [self._accumulator.set_global_step(step)]

    def leftovers(self) -> list[Leftover]:
        """What was pushed and not yet taken."""
        with v1.device(self._device):
            drop = self._accumulator.take_indexed_slices_grad(1).indices.op
            return [Leftover(self._accumulator.num_accumulated(), drop)]


def dtype_of_sums(dtype: Any) -> Any:
    """The type in which gradients are summed: a sum of many has too few digits in 16 bits."""
    return tf.float32 if dtype.base_dtype in (tf.float16, tf.bfloat16) else dtype.base_dtype


def _by_row(gradient: Any, count_row: int) -> Any:
    """The same gradient with each row once and in order, and with the row of ones that counts."""
    width = gradient.values.shape[1:]
    if width.is_fully_defined():
        ones = tf.ones([1, *width.as_list()], gradient.dtype)
    else:
        ones = tf.ones(tf.concat([[1], tf.shape(gradient.values)[1:]], 0), gradient.dtype)
    indices = tf.concat([tf.cast(gradient.indices, tf.int64), [tf.cast(count_row, tf.int64)]], 0)
    values = tf.concat([gradient.values, ones], 0)
    values = tf.cast(values, dtype_of_sums(gradient.dtype))
    rows, where = tf.unique(indices)
    sums = tf.math.unsorted_segment_sum(values, where, tf.size(rows))
    order = tf.argsort(rows)
    in_order = tf.cast(tf.gather(sums, order), gradient.dtype)
    return tf.IndexedSlices(in_order, tf.gather(rows, order))
