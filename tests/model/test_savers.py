"""A model's own saver: its names and limits hold, and a job's checkpoints have all of the model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from paramserve.errors import UsageError
from paramserve.model.job_options import JobDefaults
from paramserve.model.spec import TrainSpec

v1 = tf.compat.v1

ALL = {"global_step", "paramserve/examples", "v", "w", "w/Momentum", "v/Momentum"}


def model(make_saver, loop="training"):
    """A build function of two variables with slots, and a saver as scripts make it."""

    def build(task):
        w = v1.get_variable("w", [2], initializer=v1.ones_initializer())
        v = v1.get_variable("v", [2], initializer=v1.ones_initializer())
        saver = make_saver(w, v)
        in_scaffold = {"scaffold": v1.train.Scaffold(saver=saver)}
        given = in_scaffold if loop == "training" else {"saver": saver}
        if loop == "model_pruning":
            given["mask_update_op"] = tf.no_op()
        return TrainSpec(
            loss=tf.reduce_sum(w + v),
            optimizer=v1.train.MomentumOptimizer(0.5, 0.5),
            loop=loop,
            loop_args=given,
        )

    return build


def collected(w, v):
    v1.add_to_collection(v1.GraphKeys.SAVERS, v1.train.Saver(max_to_keep=3))


SAVERS = {
    "default": lambda w, v: v1.train.Saver(max_to_keep=3),
    "deferred": lambda w, v: v1.train.Saver(max_to_keep=3, defer_build=True),
    "sharded": lambda w, v: v1.train.Saver(max_to_keep=3, sharded=True, pad_step_number=True),
    "old format": lambda w, v: v1.train.Saver(max_to_keep=3, write_version=1),
    "some": lambda w, v: v1.train.Saver([w], max_to_keep=3),
    "collection": collected,
}


def round_trip(cluster, build_graph, build, tmp_path, **more):
    """Returns the checkpoint of one step, after a check that a new job restores all of it."""
    built = build_graph(build, **more)
    session = cluster.session(built.graph)
    session.run([built.init_op, built.local_init_op])
    session.run(built.train_op)
    with built.graph.as_default():
        values = [each.read_value() for each in v1.global_variables()]
    before = session.run(values)
    with built.graph.as_default():
        path = built.saver.save(session, str(tmp_path / "model"), write_meta_graph=False)
        session.run(built.init_op)
        assert not all(map(np.array_equal, before, session.run(values)))
        built.saver.restore(session, path)
    for one, other in zip(before, session.run(values), strict=True):
        np.testing.assert_array_equal(one, other)
    return built, {name for name, _ in tf.train.list_variables(path)}


@pytest.mark.parametrize("kind", SAVERS)
def test_all_of_the_model_is_saved_within_the_limits_of_its_own_saver(
    cluster, build_graph, tmp_path, kind
):
    built, names = round_trip(cluster, build_graph, model(SAVERS[kind]), tmp_path)
    assert names == ALL
    assert built.saver.saver_def.max_to_keep == 3
    files = {each.name for each in tmp_path.iterdir()}
    assert {"model.index", "model.data-00000-of-00001"} <= files


@pytest.mark.parametrize("loop", ["learn", "model_pruning"])
def test_the_saver_of_each_loop_is_completed(cluster, build_graph, tmp_path, loop):
    build = model(lambda w, v: v1.train.Saver([w], max_to_keep=7), loop)
    built, names = round_trip(cluster, build_graph, build, tmp_path)
    assert names == ALL
    assert built.saver.saver_def.max_to_keep == 7


def test_without_one_the_jobs_options_hold(cluster, build_graph, tmp_path):
    built, names = round_trip(
        *(cluster, build_graph, model(lambda w, v: None), tmp_path),
        defaults=JobDefaults(keep_checkpoints=2),
    )
    assert names == ALL
    assert built.saver.saver_def.max_to_keep == 2


def test_names_of_its_own_stand_in_the_checkpoint(cluster, build_graph, tmp_path):
    build = model(lambda w, v: v1.train.Saver({"new/w": w}))
    built, names = round_trip(cluster, build_graph, build, tmp_path)
    assert names == ALL - {"w"} | {"new/w"}
    assert built.job_saver.name("w") == "new/w"
    assert built.job_saver.name("v") == "v"


def test_two_variables_may_change_their_names(cluster, build_graph, tmp_path):
    """A saver does that when it writes moving averages under the names of the variables."""
    build = model(lambda w, v: v1.train.Saver({"w": v, "v": w}))
    _, names = round_trip(cluster, build_graph, build, tmp_path)
    assert names == ALL


def test_pieces_of_a_variable_are_one_there(cluster, build_graph, tmp_path):
    def build(task):
        cut = v1.get_variable(
            *("cut", [4, 2]),
            initializer=v1.ones_initializer(),
            partitioner=v1.fixed_size_partitioner(2),
        )
        scaffold = v1.train.Scaffold(saver=v1.train.Saver({"whole": cut}))
        return TrainSpec(
            loss=tf.reduce_sum(tf.convert_to_tensor(cut)),
            optimizer=v1.train.MomentumOptimizer(0.5, 0.5),
            loop_args={"scaffold": scaffold},
        )

    built, names = round_trip(cluster, build_graph, build, tmp_path)
    assert {"whole", "cut/Momentum"} <= names
    assert "cut" not in names
    assert built.job_saver.name("cut") == "whole"


def test_a_keras_model_may_have_its_own_too(cluster, build_graph, tmp_path):
    def build(task):
        layers = keras.Sequential([keras.layers.Dense(2), keras.layers.BatchNormalization()])
        loss = tf.reduce_mean(layers(tf.ones([4, 3]), training=True) ** 2)
        scaffold = v1.train.Scaffold(saver=v1.train.Saver(max_to_keep=3))
        optimizer = v1.train.AdamOptimizer()
        return TrainSpec(
            loss=loss, optimizer=optimizer, keras_model=layers, loop_args={"scaffold": scaffold}
        )

    built, names = round_trip(cluster, build_graph, build, tmp_path)
    assert len(names) == len(built.graph.get_collection("variables"))


def averages(w, v):
    average = v1.train.ExponentialMovingAverage(0.5)
    average.apply([w])
    return v1.train.Saver(average.variables_to_restore())


class Writer(v1.train.Saver):
    def save(self, *args, **kwargs):
        raise AssertionError("it must not be called")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            averages, "saves 'w' as 'w/ExponentialMovingAverage', but .* another", id="averages"
        ),
        pytest.param(
            lambda w, v: v1.train.Saver({"w/Momentum": w}), "another one of that name", id="slot"
        ),
        pytest.param(lambda w, v: Writer(), "is a Writer, expected a tf.compat.v1", id="another"),
    ],
)
def test_what_cannot_be_completed_is_refused(build_graph, make, message):
    with pytest.raises(UsageError, match=message):
        build_graph(model(make))
