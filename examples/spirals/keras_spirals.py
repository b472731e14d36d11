"""A Keras 3 model with batch normalization and dropout: which of three spirals is a point on?

The points are made on the fly, so there is no data to fetch. Their coordinates are in pixels of a
640 x 480 picture, far from zero; the model's first layer learns the scale as moving averages. They
are state that no gradient touches: naming the model in `TrainSpec.keras_model` has the service
update them with each step. Run it with::

    paramserve run examples/spirals/keras_spirals.py:build --ps 2 --workers 2 --max-steps 300
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from paramserve import TaskContext, TrainSpec

v1 = tf.compat.v1

# TensorFlow is untyped; the name documents the meaning.
Tensor = Any

ARMS = 3
BATCH_SIZE = 128
TEST_BATCHES = 32


def build(task: TaskContext) -> TrainSpec:
    """Builds the training graph of one task."""
    model = spiral_model()
    # Every worker has points of its own; stream 0 is for the evaluation.
    points, arms = spirals(stream=1 + task.index)
    logits = model(points, training=True)
    accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, axis=1), arms), tf.float32))
    v1.summary.scalar("batch/accuracy", accuracy)
    v1.summary.histogram("batch/logits", logits)
    return TrainSpec(
        loss=tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=arms, logits=logits)
        ),
        optimizer=v1.train.AdamOptimizer(0.005),
        examples=BATCH_SIZE,
        keras_model=model,
        metrics={"accuracy": accuracy},
        evaluate=evaluate,
    )


def evaluate(task: TaskContext) -> dict[str, tuple[Tensor, Tensor]]:
    """Builds the evaluation graph; batch normalization uses the moving averages here."""
    model = spiral_model()
    points, arms = spirals(stream=0, batches=TEST_BATCHES)
    predicted = tf.argmax(model(points, training=False), axis=1)
    return {"accuracy": v1.metrics.accuracy(arms, predicted)}


def spiral_model() -> keras.Model:
    """Returns the model: from points in pixels, (batch, 2), to logits, (batch, ARMS)."""
    # Named layers give variables names that stay when a layer is added. Keras makes the variables
    # here,
    # in the current graph, so each graph needs a model of its own.
    return keras.Sequential(
        [
            keras.Input([2]),
            keras.layers.BatchNormalization(momentum=0.95, name="scale"),
            keras.layers.Dense(64, name="hidden_1"),
            keras.layers.BatchNormalization(momentum=0.95, name="norm_1"),
            keras.layers.ReLU(name="relu_1"),
            keras.layers.Dense(64, name="hidden_2"),
            keras.layers.BatchNormalization(momentum=0.95, name="norm_2"),
            keras.layers.ReLU(name="relu_2"),
            keras.layers.Dropout(0.1, name="dropout"),
            keras.layers.Dense(ARMS, name="logits"),
        ],
        name="spirals",
    )


def spirals(stream: int, batches: int | None = None) -> tuple[Tensor, Tensor]:
    """Returns a batch of points, (BATCH_SIZE, 2) in pixels, and the arms, int64, they are on.

    Args:
        stream: Points of two streams differ; a stream's are always the same.
        batches: Length of the stream; without end by default.
    """

    def batch(number: Tensor) -> tuple[Tensor, Tensor]:
        def uniform(what: int) -> Tensor:
            return tf.random.stateless_uniform([BATCH_SIZE], seed=[3 * stream + what, number])

        arms = tf.cast(uniform(0) * ARMS, tf.int64)
        radius = 0.1 + 0.9 * uniform(1)
        angle = 2 * math.pi * (tf.cast(arms, tf.float32) / ARMS + radius + 0.08 * uniform(2))
        x = 320 + 200 * radius * tf.cos(angle)
        y = 240 + 200 * radius * tf.sin(angle)
        return tf.stack([x, y], axis=1), arms

    numbers = tf.data.Dataset.range(2**62 if batches is None else batches)
    points, arms = v1.data.make_one_shot_iterator(numbers.map(batch).prefetch(2)).get_next()
    return points, arms
