"""Accumulators on the parameter servers, which add up figures of several workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..tensors import Operation, Tensor

v1 = tf.compat.v1


@dataclass(frozen=True)
class Leftover:
    """The rest in an accumulator: so many, int32 scalar; `drop` waits while there are none."""

    count: Tensor
    drop: Operation


class Accumulator:
    """A sum or mean of the workers' values for a round.

    Values for an earlier round are dropped. Sessions of all tasks share it by its name, which is
    unique in the job. Type and shape (None: not known) are those of one value.
    """

    _kind: Any = v1.ConditionalAccumulator

    def __init__(
        self, dtype: Any, shape: Any, device: str, name: str, reduction: str = "MEAN"
    ) -> None:
        self._dtype, self._sums_dtype, self._device = dtype, dtype_of_sums(dtype), device
        with v1.device(device):
            self._inner = self._kind(
                self._sums_dtype, shape=shape, shared_name=name, reduction_type=reduction
            )

    def push(self, value: Any, step: Tensor) -> Operation:
        """Adds a value for a round, an int64 scalar."""
        with v1.device(self._device):
            return self._inner.apply_grad(tf.cast(value, self._sums_dtype), local_step=step)

    def take(self, replicas: int | Tensor) -> Any:
        """Waits for `replicas` values, and empties the accumulator."""
        with v1.device(self._device):
            return tf.cast(self._inner.take_grad(replicas), self._dtype)

    def start(self, step: Tensor) -> Operation:
        """Begins with a round, an int64 scalar."""
        with v1.device(self._device):
            return self._inner.set_global_step(step)

    def leftover(self) -> Leftover:
        """Returns the values that were pushed and not yet taken."""
        # Only a take empties an accumulator; it waits while there is nothing in it.
        drop = tf.nest.flatten(self.take(1), expand_composites=True)[0].op
        with v1.device(self._device):
            return Leftover(self._inner.num_accumulated(), drop)


class RowAccumulator(Accumulator):
    """A sum of `tf.IndexedSlices`, whose rows have to be `once_and_in_order`.

    TensorFlow's sparse accumulators merge two gradients as if both had their rows in order and
    once. Their mean divides a row by the workers that touched it. So this one only sums.
    """

    _kind = v1.SparseConditionalAccumulator

    def __init__(self, dtype: Any, device: str, name: str) -> None:
        super().__init__(dtype, None, device, name, "SUM")

    def push(self, value: Any, step: Tensor) -> Operation:
        """Adds rows for a round, an int64 scalar."""
        with v1.device(self._device):
            rows = tf.IndexedSlices(tf.cast(value.values, self._sums_dtype), value.indices)
            return self._inner.apply_indexed_slices_grad(rows, local_step=step)

    def take(self, replicas: int | Tensor) -> Any:
        """Waits for `replicas` pushes; gives rows in order, in the type of sums."""
        with v1.device(self._device):
            return self._inner.take_indexed_slices_grad(replicas)


def dtype_of_sums(dtype: Any) -> Any:
    """Returns the type in which a type is summed.

    A sum of many has too few digits in 16 bits. There is no accumulator of int64; float64 counts
    exactly up to 2**53.
    """
    special = {tf.float16: tf.float32, tf.bfloat16: tf.float32, tf.int64: tf.float64}
    return special.get(dtype.base_dtype, dtype.base_dtype)


def once_and_in_order(rows: Any) -> Any:
    """Sums equal rows of `tf.IndexedSlices`: each row is there once, in order."""
    indices, places = tf.unique(rows.indices)
    sums = tf.math.unsorted_segment_sum(rows.values, places, tf.size(indices))
    order = tf.argsort(indices)
    return tf.IndexedSlices(tf.gather(sums, order), tf.gather(indices, order))
