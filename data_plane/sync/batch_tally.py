"""Counts of the batches from which the gradients of a synchronous step were computed."""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf

from ..tensors import Operation, Tensor, Variable
from .sparse_mean import Leftover

v1 = tf.compat.v1


class BatchCounts(Protocol):
    """Counts how often each batch of the input has been applied.

    Attributes:
        batches: int64 of shape [batches]: those of this worker's step.
        times: int64 of shape [batches]: how often each counts.
    """

    batches: Tensor
    times: Tensor

    @property
    def num_batches(self) -> int:
        """Batches of the dataset."""

    def of_those_that_count(self, examples: Tensor) -> Tensor:
        """The part of a step's examples that counts; int64 scalars."""

    def add(self, batches: Tensor, times: Tensor | int = 1) -> Operation:
        """Counts batches; int64 of shape [batches]."""


class BatchTally:
    """Sync mode: which batches the gradients of a step are of, by the accumulators' own rule.

    They are pushed with the gradients and dropped as those are: a batch whose gradient came too
    late is not counted.

    Args:
        counts: Where applied ones are counted.
        device: Where they meet.
        name: What the accumulator's shared name begins with.
    """

    def __init__(self, counts: BatchCounts, device: str, name: str) -> None:
        self._counts, self._device = counts, device
        with v1.device(device):
            self._accumulator = v1.SparseConditionalAccumulator(
                tf.float64, shape=None, shared_name=f"{name}/batches", reduction_type="SUM"
            )
            # The newest step for which each batch was pushed; `start` sets it.
            self._pushed: Variable = v1.Variable(
                lambda: self._never(), use_resource=True, trainable=False, collections=[]
            )

    def waiting(self, global_step: Tensor) -> Tensor:
        """The batches whose gradients were pushed for a step or a later one; int64 of shape [k]."""
        with v1.device(self._device):
            return tf.where(self._pushed.read_value() >= global_step)[:, 0]

    def push(self, step: Tensor) -> Operation:
        """Hands over the batches of this worker's gradient for a step, an int64 scalar."""
        # Both cross as one tensor.
        read = tf.stack([self._counts.batches, self._counts.times])
        with v1.device(self._device):
            batches, times = tf.unstack(read, 2)
            # What has come in is found among those that wait as long as it does.
            noted = tf.raw_ops.ResourceScatterMax(
                resource=self._pushed.handle,
                indices=batches,
                updates=tf.fill(tf.shape(batches), step),
            )
            # The accumulator wants each index once and in order.
            once, places = tf.unique(tf.sort(batches))
            in_order = tf.gather(times, tf.argsort(batches, stable=True))
            sums = tf.math.unsorted_segment_sum(in_order, places, tf.size(once))
            slices = tf.IndexedSlices(tf.cast(sums, tf.float64)[:, tf.newaxis], once)
            with tf.control_dependencies([noted]):
                return self._accumulator.apply_indexed_slices_grad(slices, local_step=step)

    def apply(self, replicas: int | Tensor) -> Operation:
        """Counts the batches of a step, once there are `replicas` gradients."""
        with v1.device(self._device):
            taken = self._accumulator.take_indexed_slices_grad(replicas)
        return self._counts.add(taken.indices, taken.values[:, 0])

    def start(self, step: Tensor) -> Operation:
        """As the gradients' accumulators."""
        with v1.device(self._device):
            forgotten = self._pushed.assign(self._never(), read_value=False)
            return tf.group(self._accumulator.set_global_step(step), forgotten)

    def leftover(self) -> Leftover:
        """As the gradients' accumulators."""
        with v1.device(self._device):
            drop = self._accumulator.take_indexed_slices_grad(1).indices.op
            return Leftover(self._accumulator.num_accumulated(), drop)

    def _never(self) -> Tensor:
        return tf.fill([self._counts.num_batches], tf.constant(-1, tf.int64))
