"""The wide & deep Census model with half of the network's weights pruned while it trains.

The deep part's three matrices have masks. In each step of the first worker, the masks may be
updated: from step 200 to 1,200 the share of weights that are zero rises to a half, the smallest
weights first (Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878). All else is as in
`wide_deep.py`. Run it with::

    paramserve run examples/census/pruned.py:build --ps 2 --workers 2 --max-steps 2000
"""

from __future__ import annotations

from dataclasses import replace

import tensorflow as tf
from wide_deep import Tensor, evaluation, train_spec

from paramserve import TaskContext, TrainSpec
from paramserve.contrib.model_pruning import (
    Pruning,
    get_pruning_hparams,
    get_weight_sparsity,
    masked_fully_connected,
)

v1 = tf.compat.v1

SCHEDULE = (
    "target_sparsity=0.5,sparsity_function_begin_step=200,sparsity_function_end_step=1200,"
    "pruning_frequency=50"
)


def build(task: TaskContext) -> TrainSpec:
    """Builds the training graph of one task.

    Raises:
        ValueError: A `--param` is unknown or malformed.
    """
    spec = train_spec(task, masked)
    # After the masks, because it prunes the existing ones.
    pruning = Pruning(get_pruning_hparams().parse(SCHEDULE))
    pruning.add_pruning_summaries()
    return replace(
        spec,
        metrics={**spec.metrics, "sparsity": sparsity()},
        evaluate=evaluate,
        loop="model_pruning",
        loop_args={
            "mask_update_op": pruning.conditional_mask_update_op(),
            # One worker is enough: they share the masks.
            "mask_update_on": "chief",
        },
    )


def evaluate(task: TaskContext) -> dict[str, tuple[Tensor, Tensor]]:
    """Builds the evaluation graph: that of `wide_deep.py`, and the sparsity."""
    return {**evaluation(task, masked), "sparsity": v1.metrics.mean(sparsity())}


def masked(inputs: Tensor, units: int, name: str) -> Tensor:
    """Adds a fully connected layer with a mask on its matrix."""
    return masked_fully_connected(inputs, units, activation_fn=None, scope=name)


def sparsity() -> Tensor:
    """Computes the share of zeros in a matrix, from 0 to 1; the mean of the three."""
    return tf.reduce_mean(get_weight_sparsity())
