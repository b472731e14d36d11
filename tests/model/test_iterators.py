"""The iterators of a model's datasets, whose sessions have to close at once."""

import pytest
import tensorflow as tf

from paramserve.cluster.spec import Role
from paramserve.model.building import untuned
from paramserve.model.spec import TrainSpec

v1 = tf.compat.v1


def one_shot(dataset):
    return v1.data.make_one_shot_iterator(dataset).get_next()


def initializable(dataset):
    iterator = v1.data.make_initializable_iterator(dataset)
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
    return iterator.get_next()


def reinitializable(dataset):
    iterator = v1.data.Iterator.from_structure(dataset.element_spec.dtype, ())
    v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, iterator.make_initializer(dataset))
    return iterator.get_next()


def settings(graph):
    """Returns the tuning settings of a graph's datasets; a captured one is there twice."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    said = set()
    for node in nodes:
        if node.op == "OptionsDataset":
            options = tf.data.Options()
            message = options._to_proto()
            message.ParseFromString(node.attr["serialized_options"].s)
            if message.autotune_options.WhichOneof("optional_enabled"):
                said.add(message.autotune_options.enabled)
    return said


@pytest.mark.parametrize("iterate", [one_shot, initializable, reinitializable])
def test_a_models_datasets_are_iterated_without_a_tuning_thread(build_reader, read, iterate):
    built = build_reader(iterate)
    assert settings(built.graph) == {False}
    assert read(built) == [0, 1, 2]


def test_a_dataset_that_asks_for_tuning_gets_it(build_reader, read):
    options = tf.data.Options()
    options.autotune.enabled = True
    built = build_reader(lambda dataset: one_shot(dataset.with_options(options)))
    assert settings(built.graph) == {True}
    assert read(built) == [0, 1, 2]


def test_other_options_stay(build_reader):
    options = tf.data.Options()
    options.deterministic = False
    seen = []

    def iterate(dataset):
        dataset = dataset.with_options(options)
        value = one_shot(dataset)
        seen.append(dataset._options_attr)
        return value

    assert settings(build_reader(iterate).graph) == {False}
    assert seen[0].deterministic is False
    assert seen[0].autotune.enabled is None


def test_datasets_elsewhere_are_left_alone():
    with tf.Graph().as_default() as graph:
        with untuned():
            pass
        one_shot(tf.data.Dataset.range(3).prefetch(tf.data.AUTOTUNE))
    assert settings(graph) == set()


def test_a_build_function_that_fails_leaves_nothing_behind():
    with pytest.raises(RuntimeError, match="no data"), untuned():
        raise RuntimeError("no data")
    with tf.Graph().as_default() as graph:
        one_shot(tf.data.Dataset.range(3))
    assert settings(graph) == set()


@pytest.fixture
def build_reader(build_graph):
    """Builds a model that reads a dataset of three numbers in a given way."""

    def build(iterate):
        def model(task):
            dataset = tf.data.Dataset.range(3).map(lambda x: x, tf.data.AUTOTUNE)
            value = iterate(dataset.prefetch(tf.data.AUTOTUNE))
            weight = v1.get_variable("weight", shape=())
            return TrainSpec(
                loss=weight * tf.cast(value, tf.float32),
                optimizer=v1.train.GradientDescentOptimizer(0.1),
                metrics={"value": value},
            )

        return build_graph(model, role=Role.WORKER)

    return build


@pytest.fixture
def read(cluster):
    """Initializes such a model and reads all of its dataset."""

    def read_all(built):
        session = cluster.session(built.graph, Role.WORKER)
        session.run(built.init_op)
        session.run(built.local_init_with_tables)
        return [int(session.run(built.spec.metrics["value"])) for _ in range(3)]

    return read_all
