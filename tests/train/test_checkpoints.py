"""Checkpoints: written, listed, read, restored, removed; graphs written and read."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from paramserve import train
from paramserve.contrib.learn import train as learn_train

v1 = tf.compat.v1


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path)


def save(directory, step=None, value=(1.0, 2.0), saver=None):
    """Saves a model with two variables, in a graph of its own, and returns the checkpoint."""
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("weights", initializer=list(value))
        v1.get_variable("scope/bias", initializer=[[7]])
        session.run(v1.global_variables_initializer())
        return (saver or train.Saver)().save(session, f"{directory}/model.ckpt", global_step=step)


@pytest.mark.original_api(
    "tf.train.Saver", "tf.train.latest_checkpoint", "tf.train.get_checkpoint_state"
)
def test_a_saver_keeps_the_newest_checkpoints(directory):
    weights = v1.get_variable("weights", initializer=[0.0, 0.0])
    saver = train.Saver(max_to_keep=2)
    with v1.Session() as session:
        session.run(weights.initializer)
        for step in (1, 2, 3):
            session.run(weights.assign([step, step]))
            saver.save(session, f"{directory}/model.ckpt", global_step=step)
        kept = [f"{directory}/model.ckpt-{step}" for step in (2, 3)]
        assert saver.last_checkpoints == kept
        assert train.latest_checkpoint(directory) == kept[1]
        state = train.get_checkpoint_state(directory)
        assert list(state.all_model_checkpoint_paths) == kept
        saver.restore(session, kept[0])
        assert session.run(weights).tolist() == [2, 2]
    assert not train.checkpoint_exists(f"{directory}/model.ckpt-1")


def train_on(logdir, keep, steps):
    """Trains in a monitored session that saves each step, and keeps some checkpoints."""
    with tf.Graph().as_default():
        update = train.get_or_create_global_step().assign_add(1)
        scaffold = train.Scaffold(saver=train.Saver(max_to_keep=keep))
        with train.MonitoredTrainingSession(
            checkpoint_dir=logdir, scaffold=scaffold, save_checkpoint_steps=1
        ) as session:
            for _ in range(steps):
                session.run(update)


def supervise(logdir, keep, steps):
    """Does the same under a supervisor; the program saves by itself."""
    with tf.Graph().as_default():
        update = train.get_or_create_global_step().assign_add(1)
        saver = train.Saver(max_to_keep=keep)
        supervisor = train.Supervisor(logdir=logdir, saver=saver, save_model_secs=0)
        with supervisor.managed_session() as session:
            for _ in range(steps):
                step = session.run(update)
                saver.save(session, supervisor.save_path, global_step=step)


def learn(logdir, keep, steps):
    """The same in a loop of `contrib.learn`."""
    with tf.Graph().as_default() as graph:
        update = train.get_or_create_global_step().assign_add(1)
        learn_train(
            *(graph, logdir, update, tf.cast(update, tf.float32)),
            supervisor_save_model_secs=1e-9,
            keep_checkpoint_max=keep,
            steps=steps,
        )


def steps_in(logdir):
    paths = Path(logdir).glob("model.ckpt-*.index")
    return sorted(int(path.stem.partition("-")[2]) for path in paths)


@pytest.mark.parametrize("run", [train_on, supervise, learn])
def test_fewer_checkpoints_than_an_earlier_run_kept_are_left_after_a_save(directory, run):
    run(directory, 4, 6)
    assert steps_in(directory) == [3, 4, 5, 6]
    run(directory, 2, 2)
    assert steps_in(directory) == [7, 8]
    state = train.get_checkpoint_state(directory)
    assert [path.rpartition("-")[2] for path in state.all_model_checkpoint_paths] == ["7", "8"]


def test_a_program_that_saves_nothing_deletes_nothing(directory):
    train_on(directory, 4, 6)
    with tf.Graph().as_default():
        train.get_or_create_global_step()
        scaffold = train.Scaffold(saver=train.Saver(max_to_keep=1))
        creator = train.ChiefSessionCreator(scaffold, checkpoint_dir=directory)
        with train.MonitoredSession(creator):
            pass
    assert steps_in(directory) == [3, 4, 5, 6]


@pytest.mark.original_api("tf.train.latest_checkpoint", "tf.train.get_checkpoint_state")
def test_an_empty_directory_has_no_checkpoint(directory):
    assert train.latest_checkpoint(directory) is None
    assert train.get_checkpoint_state(directory) is None


@pytest.mark.original_api("tf.train.checkpoint_exists", "tf.train.remove_checkpoint")
def test_a_removed_checkpoint_does_not_exist(directory):
    path = save(directory)
    assert train.checkpoint_exists(path)
    assert list(Path(directory).glob("model.ckpt.data*"))
    train.remove_checkpoint(path)
    assert not train.checkpoint_exists(path)
    assert not list(Path(directory).glob("model.ckpt.*"))


@pytest.mark.original_api("tf.train.get_checkpoint_mtimes")
def test_checkpoints_have_times(directory):
    paths = [save(directory, step) for step in (1, 2)]
    os.utime(f"{paths[0]}.index", (1000, 1000))
    first, second = train.get_checkpoint_mtimes(paths)
    assert first == 1000
    assert abs(second - time.time()) < 600
    assert train.get_checkpoint_mtimes([f"{directory}/none"]) == []


@pytest.mark.original_api(
    "tf.train.generate_checkpoint_state_proto", "tf.train.update_checkpoint_state"
)
def test_the_state_file_can_be_written(directory):
    first, second = save(directory, 1), save(directory, 2)
    state = train.generate_checkpoint_state_proto(directory, first, [second, first])
    assert [state.model_checkpoint_path, *state.all_model_checkpoint_paths] == [
        first,
        second,
        first,
    ]
    train.update_checkpoint_state(directory, first, [second, first])
    assert train.latest_checkpoint(directory) == first
    train.update_checkpoint_state(directory, second, latest_filename="best")
    assert train.latest_checkpoint(directory, "best") == second
    assert train.get_checkpoint_state(directory, "best").model_checkpoint_path == second


@pytest.mark.original_api(
    "tf.train.list_variables",
    "tf.train.load_checkpoint",
    "tf.train.load_variable",
    "tf.train.NewCheckpointReader",
)
def test_checkpoints_are_read_without_a_graph(directory):
    path = save(directory, 1)
    assert sorted(train.list_variables(directory)) == [("scope/bias", [1, 1]), ("weights", [2])]
    assert train.load_variable(directory, "scope/bias").tolist() == [[7]]
    for reader in (train.load_checkpoint(directory), train.NewCheckpointReader(path)):
        assert reader.get_tensor("weights").tolist() == [1, 2]
        assert reader.has_tensor("weights")
        assert not reader.has_tensor("weight")
        assert reader.get_variable_to_shape_map() == {"weights": [2], "scope/bias": [1, 1]}
        assert reader.get_variable_to_dtype_map()["scope/bias"] == tf.int32


@pytest.mark.original_api("tf.train.init_from_checkpoint")
def test_variables_start_with_the_values_of_a_checkpoint(directory):
    save(directory)
    kernel = v1.get_variable("kernel", initializer=[0.0, 0.0])
    bias = v1.get_variable("new/bias", initializer=[[0]])
    train.init_from_checkpoint(directory, {"weights": kernel, "scope/": "new/"})
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        assert session.run(kernel).tolist() == [1, 2]
        assert session.run(bias).tolist() == [[7]]


@pytest.mark.original_api("tf.train.Checkpoint")
def test_objects_are_saved_and_restored_by_their_place_in_the_model(directory):
    def model(value):
        weight = v1.get_variable("weight", initializer=value)
        optimizer = train.AdamOptimizer(0.1)
        update = optimizer.minimize(tf.square(weight))
        return weight, update, train.Checkpoint(weight=weight, optimizer=optimizer)

    weight, update, checkpoint = model(3.0)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        session.run(update)
        path = checkpoint.save(f"{directory}/objects", session=session)
        saved = session.run(weight)
    assert path.endswith("objects-1")
    with tf.Graph().as_default(), v1.Session() as session:
        weight, _, checkpoint = model(0.0)
        status = checkpoint.restore(path)
        status.assert_consumed()
        status.initialize_or_restore(session)
        assert session.run(weight) == saved


@pytest.mark.original_api("tf.train.export_meta_graph", "tf.train.import_meta_graph")
def test_a_program_trains_a_graph_that_another_built(directory):
    weight = v1.get_variable("weight", initializer=4.0)
    v1.add_to_collection("update", train.GradientDescentOptimizer(0.25).minimize(weight**2))
    train.Saver()
    meta = train.export_meta_graph(f"{directory}/graph.meta", clear_devices=True)
    assert any(node.name == "weight" for node in meta.graph_def.node)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        path = train.Saver().save(session, f"{directory}/model", write_meta_graph=False)
    with tf.Graph().as_default() as graph, v1.Session() as session:
        train.import_meta_graph(f"{directory}/graph.meta").restore(session, path)
        [update] = graph.get_collection("update")
        session.run(update)
        assert session.run(v1.global_variables()) == [2.0]


@pytest.mark.original_api("tf.train.write_graph")
def test_a_graph_is_written_as_text_or_bytes(directory, graph):
    tf.constant(1.0, name="one")
    text = train.write_graph(graph, directory, "graph.pbtxt")
    assert 'name: "one"' in Path(text).read_text()
    binary = train.write_graph(graph.as_graph_def(), directory, "graph.pb", as_text=False)
    assert v1.GraphDef.FromString(Path(binary).read_bytes()).node[0].name == "one"


@pytest.mark.original_api("tf.train.summary_iterator")
def test_events_are_read_from_a_file(directory):
    with tf.Graph().as_default():
        writer = v1.summary.FileWriter(directory)
        value = v1.Summary.Value(tag="loss", simple_value=0.5)
        writer.add_summary(v1.Summary(value=[value]), global_step=3)
        writer.close()
    [file] = Path(directory).glob("events.*")
    version, event = train.summary_iterator(str(file))
    assert version.file_version == "brain.Event:2"
    assert (event.step, event.summary.value[0].simple_value) == (3, 0.5)


@pytest.mark.original_api("tf.train.do_quantize_training_on_graphdef")
def test_a_graph_gets_ops_that_simulate_quantization(graph):
    inputs = v1.placeholder(tf.float32, [2, 2], name="inputs")
    weights = tf.constant([[0.1, 0.2], [0.3, 0.4]])
    tf.nn.relu(tf.matmul(inputs, weights), name="outputs")
    quantized = train.do_quantize_training_on_graphdef(graph.as_graph_def(), 8)
    assert any("Quantize" in node.op for node in quantized.node)
    assert not any("Quantize" in node.op for node in graph.as_graph_def().node)
    np.testing.assert_equal([n.op for n in quantized.node if n.name == "outputs"], ["Relu"])


@pytest.mark.original_api("tf.train.Saver")
def test_variables_on_a_parameter_server_are_saved_in_shards(directory, cluster):
    with v1.device(train.replica_device_setter(cluster=cluster.spec)):
        weights = v1.get_variable("weights", initializer=[1.0, 2.0])
    with v1.device("/job:worker"):
        local = v1.get_variable("local", initializer=3.0)
    saver = train.Saver(sharded=True)
    with v1.Session(cluster.worker.target) as session:
        session.run(v1.global_variables_initializer())
        path = saver.save(session, f"{directory}/model")
        session.run([weights.assign([0, 0]), local.assign(0)])
        saver.restore(session, path)
        assert session.run(weights).tolist() == [1, 2]
        assert session.run(local) == 3
    assert len(list(Path(directory).glob("model.data-*-of-00002"))) == 2
