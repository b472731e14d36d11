"""Keras models in today's style: mixed precision, and layers with lookup tables."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from paramserve.model.spec import TrainSpec

v1 = tf.compat.v1
layers = keras.layers

WORDS = [["a"], ["b"], ["unknown"], ["c"]]


@pytest.fixture
def train(cluster, build_graph):
    """Makes steps of a model; gives the last loss, and the values of its metrics."""

    def train(build, steps):
        built = build_graph(build)
        session = cluster.session(built.graph)
        session.run([built.init_op, built.local_init_with_tables])
        for _ in range(steps):
            session.run(built.train_op)
        return session.run([built.spec.loss, dict(built.spec.metrics)])

    return train


def spec(model, outputs, targets, **metrics):
    return TrainSpec(
        loss=tf.reduce_mean((outputs - targets) ** 2),
        optimizer=v1.train.GradientDescentOptimizer(0.25),
        keras_model=model,
        metrics=metrics,
    )


def vocabulary(tmp_path):
    file = tmp_path / "vocabulary.txt"
    file.write_text("a\nb\nc\n")
    return str(file)


LAYERS = {
    "a list of words": (
        lambda _: layers.StringLookup(vocabulary=["a", "b", "c"]),
        WORDS,
        [[1], [2], [0], [3]],
    ),
    "a file of words": (
        lambda tmp_path: layers.StringLookup(vocabulary=vocabulary(tmp_path)),
        WORDS,
        [[1], [2], [0], [3]],
    ),
    "a list of numbers": (
        lambda _: layers.IntegerLookup(vocabulary=[10, 20]),
        [[20], [10], [30]],
        [[2], [1], [0]],
    ),
    "text": (
        lambda _: layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=3),
        [["b a"], ["a unknown b b"]],
        [[3, 2, 0], [2, 1, 3]],
    ),
    "boundaries": (
        lambda _: layers.Discretization(bin_boundaries=[0.0, 1.0]),
        [[-1.0], [0.5], [2.0]],
        [[0], [1], [2]],
    ),
}


@pytest.mark.parametrize(("make_layer", "inputs", "ids"), LAYERS.values(), ids=LAYERS)
def test_embeddings_are_trained_behind_layers_that_know_their_vocabulary(
    train, tmp_path, make_layer, inputs, ids
):
    def build(task):
        found = make_layer(tmp_path)(tf.constant(inputs))
        model = keras.Sequential([layers.Embedding(4, 1), layers.Flatten()])
        return spec(model, model(found), np.float32(ids), found=found)

    loss, metrics = train(build, steps=60)
    assert metrics["found"].tolist() == ids
    assert loss < 1e-3


def test_numbers_are_normalized_by_a_mean_and_a_variance_that_are_given(train):
    def build(task):
        normalized = layers.Normalization(mean=[1.0, 2.0], variance=[4.0, 9.0])(
            tf.constant([[3.0, 8.0], [1.0, -1.0]])
        )
        model = keras.Sequential([layers.Dense(1)])
        return spec(model, model(normalized), [[1.0], [0.0]], normalized=normalized)

    loss, metrics = train(build, steps=60)
    np.testing.assert_allclose(metrics["normalized"], [[1, 2], [0, -1]], rtol=1e-6)
    assert loss < 1e-3


def test_words_may_be_counted_in_vectors_of_a_length_that_is_given(train):
    def build(task):
        length = {"max_tokens": 4, "pad_to_max_tokens": True}
        words = ["a", "b", "c"]
        lookup = layers.StringLookup(vocabulary=words, output_mode="multi_hot", **length)
        vectors = lookup(tf.constant([["a", "b"], ["b", "unknown"]]))
        model = keras.Sequential([layers.Dense(1)])
        return spec(model, model(vectors), [[1.0], [0.0]], vectors=vectors)

    loss, metrics = train(build, steps=60)
    assert metrics["vectors"].tolist() == [[0, 1, 1, 0], [1, 0, 1, 0]]
    assert loss < 1e-3


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_16_bits_and_keeps_weights_of_32(train, build_graph, policy):
    made = []

    def build(task):
        keras.config.set_dtype_policy(policy)
        steps = [
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(momentum=0.5),
            layers.Dense(1, dtype="float32"),
        ]
        model = keras.Sequential([keras.Input((4,)), *steps])
        made.append(model)
        inputs = tf.random.stateless_normal([64, 4], [1, 2])
        outputs = model(inputs, training=True)
        optimizer = v1.train.GradientDescentOptimizer(0.05)
        loss = tf.reduce_mean((outputs - tf.reduce_sum(inputs, 1, keepdims=True)) ** 2)
        return TrainSpec(loss=loss, optimizer=optimizer, keras_model=model)

    before = keras.config.dtype_policy()
    try:
        first, _ = train(build, steps=0)
        last, _ = train(build, steps=30)
    finally:
        keras.config.set_dtype_policy(before)
    assert last < 0.3 * first
    assert made[-1].layers[0].compute_dtype == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in made[-1].weights} == {"float32"}
