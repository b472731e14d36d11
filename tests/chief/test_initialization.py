"""Fresh starts, and restoring the newest checkpoint that is whole."""

import dataclasses
import logging
from pathlib import Path

import pytest
import tensorflow as tf

from paramserve.chief.initialization import find_checkpoints, initialize
from paramserve.errors import JobFailed
from paramserve.model.loops import JobDefaults
from paramserve.model.spec import TrainSpec

v1 = tf.compat.v1


@pytest.fixture
def logdir(tmp_path):
    return str(tmp_path)


@pytest.fixture
def built(build_graph, counting_model):
    return build_graph(counting_model)


@pytest.fixture
def session(cluster, built):
    return cluster.session(built.graph)


@pytest.fixture
def write_checkpoints(built, session, logdir):
    """Trains and saves at these global steps; leaves the servers with other values."""

    def write(*steps):
        session.run([built.init_op, built.local_init_op])
        for step in steps:
            while session.run(built.global_step) < step:
                session.run(built.train_op)
            with built.graph.as_default():
                built.saver.save(
                    session, f"{logdir}/model.ckpt", global_step=step, write_meta_graph=False
                )
        session.run(built.train_op)

    return write


def truncate(path):
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def weight(built, session):
    tensor = built.graph.get_tensor_by_name("w/Read/ReadVariableOp:0")
    return session.run(tensor).tolist()


def test_checkpoints_are_found_newest_first_by_number(logdir, tmp_path):
    for name in (
        *("model.ckpt-9.index", "model.ckpt-100.index", "model.ckpt-20.index"),
        "model.ckpt-300.data-00000-of-00001",  # Its index was never written.
        "model.ckpt-400.index.tempstate123",
        "other.ckpt-500.index",
        "checkpoint",
    ):
        (tmp_path / name).touch()
    assert find_checkpoints(logdir) == [
        (step, f"{logdir}/model.ckpt-{step}") for step in (100, 20, 9)
    ]


def test_a_directory_without_any_has_none(tmp_path):
    assert find_checkpoints(str(tmp_path)) == []
    assert find_checkpoints(str(tmp_path / "not there")) == []


def test_a_fresh_start_initializes_everything(built, session, logdir):
    assert initialize(built, session, logdir) is None
    assert len(session.run(built.uninitialized)) == 0
    assert session.run([built.global_step, built.examples]) == [0, 0]
    assert weight(built, session) == [0.0] * 3


def test_the_newest_checkpoint_is_restored(built, session, logdir, write_checkpoints):
    write_checkpoints(2, 10)
    assert initialize(built, session, logdir) == f"{logdir}/model.ckpt-10"
    assert session.run([built.global_step, built.examples]) == [10, 50]
    assert weight(built, session) == [-10.0] * 3


@pytest.mark.parametrize("fault", ["truncated data", "no data", "empty index", "truncated index"])
def test_a_torn_checkpoint_is_passed_over_with_its_reason(
    built, session, logdir, write_checkpoints, caplog, fault
):
    write_checkpoints(2, 5, 10)
    newest = Path(f"{logdir}/model.ckpt-10")
    data, index = Path(f"{newest}.data-00000-of-00001"), Path(f"{newest}.index")
    match fault:
        case "truncated data":
            truncate(data)
        case "no data":
            data.unlink()
        case "empty index":
            index.write_bytes(b"")
        case "truncated index":
            truncate(index)
    with caplog.at_level(logging.WARNING):
        assert initialize(built, session, logdir) == f"{logdir}/model.ckpt-5"
    assert session.run([built.global_step, built.examples]) == [5, 25]
    assert weight(built, session) == [-5.0] * 3
    [line] = [r.getMessage() for r in caplog.records if "cannot be used" in r.getMessage()]
    assert str(newest) in line
    assert not line.endswith(": ")
    assert "\n" not in line


def test_a_checkpoint_that_lost_its_index_does_not_count(built, session, logdir, write_checkpoints):
    write_checkpoints(2, 10)
    Path(f"{logdir}/model.ckpt-10.index").unlink()
    assert initialize(built, session, logdir) == f"{logdir}/model.ckpt-2"


def test_checkpoints_of_which_none_is_whole_are_not_started_over(
    built, session, logdir, write_checkpoints
):
    write_checkpoints(2, 10)
    for step in (2, 10):
        truncate(f"{logdir}/model.ckpt-{step}.data-00000-of-00001")
    with pytest.raises(JobFailed) as caught:
        initialize(built, session, logdir)
    message = str(caught.value)
    assert message.startswith(f"no checkpoint in {logdir} can be restored")
    assert "Give another --logdir to start afresh" in message
    assert f"Newest: {logdir}/model.ckpt-10: " in message


def test_a_model_that_changed_does_not_fit(cluster, build_graph, logdir, write_checkpoints):
    write_checkpoints(2)
    cluster.reset()

    def other(task):
        new = v1.get_variable("brand_new", [7], initializer=v1.zeros_initializer())
        return TrainSpec(loss=tf.reduce_sum(new), optimizer=v1.train.AdamOptimizer())

    built = build_graph(other)
    with pytest.raises(JobFailed, match=r"did the model change\?.*brand_new"):
        initialize(built, cluster.session(built.graph), logdir)


def test_a_model_of_another_shape_does_not_fit(cluster, build_graph, logdir, write_checkpoints):
    write_checkpoints(2)
    cluster.reset()

    def wider(task):
        wide = v1.get_variable("w", [4], initializer=v1.zeros_initializer())
        return TrainSpec(loss=tf.reduce_sum(wide), optimizer=v1.train.MomentumOptimizer(1.0, 0.0))

    built = build_graph(wider)
    with pytest.raises(JobFailed, match=r"did the model change\?.*shape"):
        initialize(built, cluster.session(built.graph), logdir)


def test_old_checkpoints_of_an_earlier_run_are_deleted_in_turn(
    cluster, build_graph, counting_model, logdir, write_checkpoints
):
    write_checkpoints(2, 4)
    built = build_graph(counting_model, defaults=JobDefaults(keep_checkpoints=2))
    session = cluster.session(built.graph)
    initialize(built, session, logdir)
    with built.graph.as_default():
        built.saver.save(session, f"{logdir}/model.ckpt", global_step=6, write_meta_graph=False)
    assert [step for step, _ in find_checkpoints(logdir)] == [6, 4]


def test_a_variable_that_is_left_without_a_value_is_named(built, session, logdir):
    forgetful = dataclasses.replace(built, init_op=built.global_step.initializer)
    with pytest.raises(JobFailed, match=r"without a value after initialization: w, w/Momentum"):
        initialize(forgetful, session, logdir)
