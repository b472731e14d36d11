"""A Keras model with preprocessing layers, in mixed precision, beside an update op of its own."""

import keras
import numpy as np
import tensorflow as tf

from paramserve import TaskContext, TrainSpec

v1 = tf.compat.v1
layers = keras.layers

CITIES = ["Bonn", "Lima", "Oslo"]
NOTES = ["sunny", "rain"]


def build(task: TaskContext) -> TrainSpec:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = _model()
    inputs, wanted = _input(repeats=True)
    loss = tf.reduce_mean((model(inputs, training=True) - wanted) ** 2)
    steps = v1.get_variable("own_steps", initializer=0, trainable=False)
    v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, steps.assign_add(1, read_value=False))
    return TrainSpec(
        loss=loss,
        optimizer=v1.train.AdamOptimizer(0.05),
        examples=tf.shape(wanted)[0],
        keras_model=model,
        evaluate=evaluate,
    )


def evaluate(task: TaskContext):
    keras.config.set_dtype_policy("mixed_bfloat16")
    inputs, wanted = _input(repeats=False)
    return {"error": v1.metrics.mean_absolute_error(wanted, _model()(inputs))}


def _model():
    city = keras.Input((1,), dtype="string", name="city")
    note = keras.Input((1,), dtype="string", name="note")
    height = keras.Input((1,), name="height")
    words = layers.TextVectorization(vocabulary=NOTES, output_sequence_length=2)
    parts = [
        layers.Flatten()(layers.Embedding(4, 4)(layers.StringLookup(vocabulary=CITIES)(city))),
        layers.Flatten()(layers.Embedding(4, 2)(words(note))),
        layers.Normalization(mean=[100.0], variance=[400.0])(height),
    ]
    hidden = layers.Dense(16, activation="relu")(layers.Concatenate()(parts))
    hidden = layers.BatchNormalization(momentum=0.8)(hidden)
    return keras.Model([city, note, height], layers.Dense(1, dtype="float32")(hidden))


def _input(repeats: bool):
    random = np.random.RandomState(3)
    city, note = random.randint(4, size=256), random.randint(2, size=256)
    height = random.normal(100, 20, 256).astype(np.float32)
    columns = (
        np.array([*CITIES, "elsewhere"])[city],
        np.array(["Sunny!", "rain, rain"])[note],
        height,
        (city + note + (height - 100) / 20).astype(np.float32),
    )
    dataset = tf.data.Dataset.from_tensor_slices(tuple(column[:, None] for column in columns))
    dataset = dataset.repeat().batch(64) if repeats else dataset.batch(256)
    *inputs, wanted = v1.data.make_one_shot_iterator(dataset).get_next()
    return inputs, wanted
