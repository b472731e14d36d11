"""The model's own count of its input: how often each batch has been applied.

It is a variable beside the examples' counter, counted in the same step as the update. So every
model that is saved, mirrored, moved or restored has the count of the batches behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ...data_plane.tensors import Operation, Tensor, Variable
from ...errors import UsageError
from .shard_plan import PLANS, InputPlan

v1 = tf.compat.v1

# The service's own variable: how often each batch of the dataset has been applied.
APPLIED = "paramserve/input"


class InputCounts:
    """Counters of applied batches.

    Args:
        plan: The plan of the input.
        position: Position of this worker's step: an int64 tensor whose last axis is as in
            `model.input.POSITION`, of shape [3], or [batches, 3] for several in a step.
        device: The parameter server that counts.

    Attributes:
        plan: The plan of the input.
        applied: int32 variable of shape [batches of the dataset]: how often each was applied.
        batches: int64 of shape [batches]: those of this worker's step.
        times: int64 of shape [batches]: how often each counts, which is once, or 0 if it only
            fills up a step.
    """

    def __init__(self, plan: InputPlan, position: Tensor, device: str) -> None:
        self._device = device
        with v1.device(device):
            # Not `get_variable`, which would cut a large one into pieces where that is asked for.
            self.applied: Variable = v1.Variable(
                lambda: tf.zeros([plan.num_batches], tf.int32),
                name=APPLIED,
                use_resource=True,
                trainable=False,
            )
        self.plan = plan
        positions = tf.reshape(position, [-1, 3])
        self.batches: Tensor = positions[:, 0]
        self.times: Tensor = tf.cast(positions[:, 1] >= 0, tf.int64)

    @property
    def num_batches(self) -> int:
        """Batches of the dataset."""
        return self.plan.num_batches

    def of_those_that_count(self, examples: Tensor) -> Tensor:
        """Returns the part of a step's examples that counts; int64 scalars."""
        return examples * tf.reduce_sum(self.times) // tf.size(self.times, tf.int64)

    def add(self, batches: Tensor, times: Tensor | int = 1) -> Operation:
        """Counts batches; int64 of shape [batches]."""
        with v1.device(self._device):
            updates = tf.cast(tf.broadcast_to(times, tf.shape(batches)), tf.int32)
            return tf.raw_ops.ResourceScatterAdd(
                resource=self.applied.handle, indices=batches, updates=updates
            )


@dataclass(frozen=True)
class Counters:
    """The counters of updates on one parameter server.

    Attributes:
        global_step: int64 scalar variable: updates.
        examples: int64 scalar variable: examples applied.
        input: Batches applied, if the input is read in shards.
    """

    global_step: Variable
    examples: Variable
    input: InputCounts | None = None

    @property
    def variables(self) -> list[Variable]:
        """All of them."""
        own = [self.global_step, self.examples]
        return own if self.input is None else [*own, self.input.applied]


def find_counts(graph: Any, position: Tensor | None, device: str) -> InputCounts | None:
    """Returns the counts of a build function's input; None if it has none that is leased.

    Args:
        graph: The graph in which the build function has made its input.
        position: As in `InputCounts`; None: not given.
        device: The parameter server that counts.

    Raises:
        UsageError: The position is missing, or is given for nothing, or there are two datasets.
    """
    plans = graph.get_collection(PLANS)
    if len(plans) > 1:
        names = ", ".join(repr(plan.name) for plan in plans)
        raise UsageError(f"the model reads the datasets {names} in shards, expected one at most")
    if plans and position is None:
        raise UsageError(
            "TrainSpec.position is missing: give it the position from the dataset of "
            "task.shards(), task.files() or task.file_shards(), so that its batches are counted"
        )
    if not plans and position is not None:
        raise UsageError(
            "TrainSpec.position is given, but the build function has made no dataset with "
            "task.shards() or task.file_shards()"
        )
    return InputCounts(plans[0], position, device) if plans else None
