"""Counts of the batches from which the gradients of a synchronous step were computed."""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf

from ..tensors import Operation, Tensor, Variable
from .accumulators import RowAccumulator, once_and_in_order

v1 = tf.compat.v1


class BatchCounts(Protocol):
    """Counter of how often each batch of the input has been applied.

    A worker's step has `batches`, int64 of shape [batches], and each counts so many `times`.
    """

    batches: Tensor
    times: Tensor

    @property
    def num_batches(self) -> int:
        """Batches of the dataset."""

    def of_those_that_count(self, examples: Tensor) -> Tensor:
        """Returns the part of a step's examples that counts; int64 scalars."""

    def add(self, batches: Tensor, times: Tensor | int = 1) -> Operation:
        """Counts batches; int64 of shape [batches]."""


class BatchTally(RowAccumulator):
    """The batches of a step's gradients, by the accumulators' own rule.

    They are pushed and dropped with the gradients: a batch whose gradient came too late is not
    counted.
    """

    def __init__(self, counts: BatchCounts, device: str, name: str) -> None:
        super().__init__(tf.int64, device, f"{name}/batches")
        self._counts = counts
        with v1.device(device):
            # The newest step for which each batch was pushed; `start` sets it.
            self._pushed: Variable = v1.Variable(
                lambda: self._never(), use_resource=True, trainable=False, collections=[]
            )

    def waiting(self, step: Tensor) -> Tensor:
        """Returns the batches with gradients for a step or a later one; int64 of shape [k]."""
        with v1.device(self._device):
            return tf.where(self._pushed.read_value() >= step)[:, 0]

    def push_batches(self, step: Tensor) -> Operation:
        """Hands over the batches of this worker's gradient for a step, an int64 scalar."""
        # Both cross as one tensor.
        read = tf.stack([self._counts.batches, self._counts.times])
        with v1.device(self._device):
            batches, times = tf.unstack(read, 2)
            # A batch that has arrived is found among the waiting ones until its gradient is
            # applied.
            noted = tf.raw_ops.ResourceScatterMax(
                resource=self._pushed.handle,
                indices=batches,
                updates=tf.fill(tf.shape(batches), step),
            )
            with tf.control_dependencies([noted]):
                rows = tf.IndexedSlices(times[:, tf.newaxis], batches)
                return self.push(once_and_in_order(rows), step)

    def apply(self, replicas: int | Tensor) -> Operation:
        """Counts the batches of a step, once there are `replicas` gradients."""
        taken = self.take(replicas)
        return self._counts.add(taken.indices, taken.values[:, 0])

    def start(self, step: Tensor) -> Operation:
        """Begins with a round, and forgets which batches were pushed for earlier ones."""
        with v1.device(self._device):
            forgotten = self._pushed.assign(self._never(), read_value=False)
        return tf.group(super().start(step), forgotten)

    def _never(self) -> Tensor:
        return tf.fill([self._counts.num_batches], tf.constant(-1, tf.int64))
