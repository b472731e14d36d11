"""The wide & deep Census model with half of the network's weights pruned while it trains.

The deep part's three matrices have masks. In each step of the first worker, the masks may be
updated: from step 200 to 1,200 the share of weights that are zero rises to a half, the smallest
weights first (Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878). Input, features and wide part
are those of `wide_deep.py`. Run it with::

    paramserve run examples/census/pruned.py:build --ps 2 --workers 2 --max-steps 2000
"""

from __future__ import annotations

import tensorflow as tf
from wide_deep import (
    CATEGORIES,
    TEST_FILE,
    Batch,
    Settings,
    Tensor,
    features_of,
    lines,
    training_batches,
    wide,
)

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
    settings = Settings.parse(task.params)
    v1.set_random_seed(settings.seed)
    batch = v1.data.make_one_shot_iterator(training_batches(task, settings)).get_next()
    logits = wide(batch, settings) + masked_deep(batch, settings)
    labels = batch["label"]
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))
    accuracy = tf.reduce_mean(tf.cast(tf.equal(logits > 0, labels > 0.5), tf.float32))

    # After the masks: it prunes those that there are.
    pruning = Pruning(get_pruning_hparams().parse(SCHEDULE))
    pruning.add_pruning_summaries()
    return TrainSpec(
        loss=loss,
        optimizer=v1.train.AdagradOptimizer(settings.learning_rate),
        examples=tf.size(labels),
        metrics={"accuracy": accuracy, "sparsity": sparsity()},
        evaluate=evaluate,
        loop="model_pruning",
        loop_args={
            "mask_update_op": pruning.conditional_mask_update_op(),
            # One worker is enough: they share the masks.
            "mask_update_on": "chief",
        },
    )


def evaluate(task: TaskContext) -> dict[str, tuple[Tensor, Tensor]]:
    """Builds the evaluation graph: every test row once.

    Returns:
        Name to (value, update operation): accuracy, area under the ROC curve, and the sparsity.
    """
    settings = Settings.parse(task.params)
    dataset = lines(TEST_FILE).batch(1024).map(features_of(settings))
    batch = v1.data.make_one_shot_iterator(dataset).get_next()
    logits = wide(batch, settings) + masked_deep(batch, settings)
    labels = batch["label"] > 0.5
    return {
        "accuracy": v1.metrics.accuracy(labels, logits > 0),
        "auc": v1.metrics.auc(labels, tf.sigmoid(logits), num_thresholds=1000),
        "sparsity": v1.metrics.mean(sparsity()),
    }


def masked_deep(batch: Batch, settings: Settings) -> Tensor:
    """The deep part of `wide_deep.py`, with masks on its matrices; not on its embeddings."""
    size, units = settings.embedding_size, settings.hidden_units
    with v1.variable_scope("deep"):
        table = v1.get_variable(
            "embeddings",
            [settings.embedding_buckets, size],
            initializer=v1.random_normal_initializer(stddev=0.1),
        )
        embedded = tf.reshape(tf.gather(table, batch["deep_ids"]), [-1, len(CATEGORIES) * size])
        hidden = tf.concat([embedded, batch["numbers"]], axis=1)
        hidden = masked_fully_connected(hidden, units, scope="hidden_1")
        hidden = masked_fully_connected(hidden, units // 2, scope="hidden_2")
        logit = masked_fully_connected(hidden, 1, activation_fn=None, scope="logit")
        return tf.squeeze(logit, axis=1)


def sparsity() -> Tensor:
    """The share of zeros in a matrix, from 0 to 1; the mean of the three."""
    return tf.reduce_mean(get_weight_sparsity())
