"""Keras 3 models in a graph: their state moves with the steps, and their names repeat."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from paramserve.errors import JobFailed, UsageError
from paramserve.model.keras_updates import collect_updates, constant_writes, reset_names
from paramserve.model.spec import TrainSpec

v1 = tf.compat.v1
layers = keras.layers

MEAN, DEVIATION = 5.0, 2.0


def sequential():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.BatchNormalization(momentum=0.5),
            layers.Dense(8, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(1),
        ]
    )


def functional():
    inputs = keras.Input((4,))
    hidden = layers.BatchNormalization(momentum=0.5)(inputs)
    return keras.Model(inputs, layers.Dense(1)(layers.Dropout(0.5)(hidden)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.normalize = layers.BatchNormalization(momentum=0.5)
        self.drop = layers.Dropout(0.5)
        self.dense = layers.Dense(1)

    def call(self, inputs, training=False):
        hidden = self.normalize(inputs, training=training)
        return self.dense(self.drop(hidden, training=training))


def frozen():
    model = sequential()
    model.layers[0].trainable = False
    return model


MODELS = [sequential, functional, Subclassed]


def normal_inputs():
    """Makes rows whose every column has this mean and deviation, new ones in each step."""
    return v1.random_normal([256, 4], MEAN, DEVIATION, seed=3)


def build_of(make_model, adapt=lambda model: None):
    """A build function that trains a Keras model; `adapt` may do something to it first."""

    def build(task):
        inputs = normal_inputs()
        model = make_model()
        outputs = model(inputs, training=True)
        adapt(model)
        loss = tf.reduce_mean((outputs - tf.reduce_sum(inputs, 1, keepdims=True)) ** 2)
        return TrainSpec(
            loss=loss, optimizer=v1.train.GradientDescentOptimizer(1e-6), keras_model=model
        )

    return build


def named(built, ending):
    """Returns the only variable whose name has this ending."""
    variables = built.graph.get_collection(v1.GraphKeys.GLOBAL_VARIABLES)
    [found] = [v for v in variables if v.op.name.endswith(ending)]
    return built.graph.get_tensor_by_name(f"{found.op.name}/Read/ReadVariableOp:0")


def variable_names(graph):
    return [v.op.name for v in graph.get_collection(v1.GraphKeys.GLOBAL_VARIABLES)]


@pytest.fixture
def start(cluster, build_graph):
    """Builds and initializes; gives graph and session."""

    def start(build):
        built = build_graph(build)
        session = cluster.session(built.graph)
        session.run([built.init_op, built.local_init_op])
        return built, session

    return start


# State


@pytest.mark.parametrize("make_model", MODELS)
def test_moving_averages_move_and_dropout_drops_other_units_in_each_step(start, make_model):
    built, session = start(build_of(make_model))
    state = [
        named(built, ending)
        for ending in ("moving_mean", "moving_variance", "seed_generator_state")
    ]
    mean, variance, first_seed = session.run(state)
    assert (mean.tolist(), variance.tolist()) == ([0.0] * 4, [1.0] * 4)
    session.run(built.train_op)
    np.testing.assert_allclose(session.run(state[0]), MEAN / 2, atol=1.0)  # Momentum 0.5.
    for _ in range(11):
        session.run(built.train_op)
    mean, variance, seed = session.run(state)
    np.testing.assert_allclose(mean, MEAN, atol=0.6)
    np.testing.assert_allclose(variance, DEVIATION**2, rtol=0.4)
    assert (seed - first_seed).tolist() == [0, 12]


def test_a_frozen_layer_keeps_its_averages_and_weights(start):
    built, session = start(build_of(frozen))
    watched = [named(built, "moving_mean"), named(built, "gamma"), named(built, "dense/kernel")]
    mean, gamma, kernel = session.run(watched)
    for _ in range(3):
        session.run(built.train_op)
    mean_after, gamma_after, kernel_after = session.run(watched)
    assert mean_after.tolist() == mean.tolist()
    assert gamma_after.tolist() == gamma.tolist()
    assert (kernel_after != kernel).any()


def test_a_recurrent_layer_with_dropout_keeps_its_seeds(start):
    def make_model():
        steps = [keras.Input((4,)), layers.Reshape((2, 2)), layers.LSTM(3, dropout=0.2)]
        return keras.Sequential([*steps, layers.Dense(1)])

    built, session = start(build_of(make_model))
    seed = named(built, "seed_generator_state")
    first = session.run(seed)
    session.run(built.train_op)
    assert session.run(seed)[1] > first[1]


def test_a_random_layer_without_a_seed_is_no_constant(start):
    class Noise(layers.Layer):
        def call(self, inputs, training=False):
            return inputs + keras.random.normal(tf.shape(inputs))

    def make_model():
        return keras.Sequential([keras.Input((4,)), Noise(), layers.Dense(1)])

    for _ in range(2):  # Keras keeps one generator for all graphs, which would be the first one's.
        built, session = start(build_of(make_model))
        seed = named(built, "seed_generator_state")
        first = session.run(seed)
        session.run(built.train_op)
        assert (session.run(seed) != first).any()


def test_the_optimizers_own_writes_are_no_updates():
    reset_names()
    with tf.Graph().as_default():
        model = sequential()
        loss = tf.reduce_sum(model(normal_inputs(), training=True))
        before = collect_updates(model)
        assert sorted(op.inputs[0].op.name.split("/")[-1] for op in before) == [
            "moving_mean",
            "moving_variance",
            "seed_generator_state",
        ]
        v1.train.AdamOptimizer().minimize(loss, var_list=[v.value for v in model.trainable_weights])
        assert collect_updates(model) == before
        assert constant_writes(model) == []


def test_a_model_that_only_predicts_has_no_updates():
    reset_names()
    with tf.Graph().as_default():
        model = sequential()
        model(normal_inputs(), training=False)
        assert collect_updates(model) == []


# Mistakes


def test_setting_weights_in_a_graph_is_an_error_instead_of_nothing(build_graph):
    def set_weights(model):
        model.set_weights([np.ones(weight.shape, "float32") for weight in model.weights])

    with pytest.raises(UsageError, match=r"sets weights .*use .*init_from_checkpoint"):
        build_graph(build_of(sequential, set_weights))


def test_initializing_from_a_checkpoint_is_no_mistake(start, tmp_path):
    path = str(tmp_path / "pretrained")
    with tf.Graph().as_default(), v1.Session() as session:
        kernel = v1.get_variable("old/kernel", initializer=3.0 * tf.ones([4, 8]))
        session.run(kernel.initializer)
        v1.train.Saver().save(session, path)

    def load(model):
        [kernel] = [w.value for w in model.weights if w.path.endswith("dense/kernel")]
        v1.train.init_from_checkpoint(path, {"old/kernel": kernel})

    built, session = start(build_of(sequential, load))
    np.testing.assert_array_equal(session.run(named(built, "dense/kernel")), 3.0 * np.ones([4, 8]))
    session.run(built.train_op)
    after = session.run(named(built, "dense/kernel"))
    np.testing.assert_allclose(after, 3.0, atol=0.1)
    assert (after != 3.0).any()


def test_a_model_made_elsewhere_is_refused(build_graph):
    reset_names()
    with tf.Graph().as_default():
        elsewhere = sequential()

    def build(task):
        weight = v1.get_variable("w", initializer=1.0)
        return TrainSpec(loss=weight, optimizer=v1.train.AdamOptimizer(), keras_model=elsewhere)

    with pytest.raises(UsageError, match=r"not in the graph being built; make .* inside build"):
        build_graph(build)


def test_a_model_called_in_a_conditional_is_refused(build_graph):
    def build(task):
        inputs = normal_inputs()
        model = sequential()
        model.build((None, 4))
        outputs = tf.cond(
            tf.reduce_mean(inputs) > 0,
            lambda: model(inputs, training=True),
            lambda: tf.zeros([256, 1]),
        )
        loss = tf.reduce_mean(outputs**2)
        return TrainSpec(loss=loss, optimizer=v1.train.AdamOptimizer(), keras_model=model)

    with pytest.raises(UsageError, match="call the model outside of it"):
        build_graph(build)


def test_an_error_in_a_layer_says_what_was_wrong(build_graph):
    """Keras puts the cause into the third line of its messages."""

    class Broken(layers.Layer):
        def call(self, inputs):
            raise ValueError("the number of heads has to divide 4")

    def build(task):
        keras.Sequential([Broken()])(normal_inputs())

    with pytest.raises(JobFailed, match=r"ValueError: .*the number of heads has to divide 4"):
        build_graph(build)


# Names


@pytest.mark.parametrize("make_model", MODELS)
def test_a_model_built_again_has_the_same_names(build_graph, make_model):
    build = build_of(make_model)
    first, second = build_graph(build), build_graph(build)
    assert variable_names(first.graph) == variable_names(second.graph)
    reset_names()
    with tf.Graph().as_default() as evaluation:  # As chief/evaluation.py does.
        make_model()(normal_inputs(), training=False)
    names = variable_names(evaluation)
    assert any(name.endswith("kernel") for name in names)
    assert set(names) <= set(variable_names(first.graph))


def test_a_precision_that_was_chosen_before_stays():
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        reset_names()
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy(before)
