"""Session creators of a static cluster: initialization, waiting, and error messages."""

import pytest
import tensorflow as tf

from paramserve.loops.static_sessions import (
    ChiefSessionCreator,
    ReleaseThreadsHook,
    WorkerSessionCreator,
)

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture
def logdir(tmp_path):
    return str(tmp_path)


def write_checkpoints(logdir, *values):
    """Makes the model and its checkpoints 0, 1, ..., with these values of the weight."""
    weight = v1.get_variable("weight", initializer=-1.0)
    number = v1.placeholder(tf.float32, [])
    assign = weight.assign(number)
    saver = v1.train.Saver()
    with v1.Session() as session:
        for step, value in enumerate(values):
            session.run(assign, {number: value})
            saver.save(session, f"{logdir}/model.ckpt", global_step=step)
    return weight


def test_a_fresh_chief_initializes_in_order():
    start = v1.placeholder(tf.float32, [])
    weight = v1.get_variable("weight", initializer=start)
    local = v1.get_local_variable("local", initializer=0.0)
    missing = v1.report_uninitialized_variables([local])
    seen = []
    scaffold = v1.train.Scaffold(
        init_feed_dict={start: 7.0},
        init_fn=lambda scaffold, session: seen.extend(session.run([weight, missing])),
    )
    with ChiefSessionCreator(scaffold).create_session() as session:
        assert seen == [7.0, [b"local"]]
        assert session.run(local) == 0.0


def test_a_chief_with_a_checkpoint_restores_the_newest_and_initializes_nothing(logdir):
    weight = write_checkpoints(logdir, 1.0, 2.0)
    local = v1.get_local_variable("local", initializer=5.0)
    called = []
    scaffold = v1.train.Scaffold(init_fn=lambda scaffold, session: called.append(session))
    with ChiefSessionCreator(scaffold, checkpoint_dir=logdir).create_session() as session:
        assert session.run([weight, local]) == [2.0, 5.0]
    assert not called
    one = ChiefSessionCreator(scaffold, checkpoint_filename_with_path=f"{logdir}/model.ckpt-0")
    with one.create_session() as session:
        assert session.run(weight) == 1.0


def test_a_directory_and_a_checkpoint_together_are_refused(logdir):
    with pytest.raises(ValueError, match="are both given"):
        ChiefSessionCreator(checkpoint_dir=logdir, checkpoint_filename_with_path="x")


def test_a_checkpoint_whose_files_are_gone_is_not_started_afresh(logdir, tmp_path):
    write_checkpoints(logdir, 1.0)
    for file in tmp_path.glob("model.ckpt*"):
        file.unlink()
    with pytest.raises(ValueError, match="not a valid checkpoint"):
        ChiefSessionCreator(checkpoint_dir=logdir).create_session()


def test_a_chief_that_cannot_make_the_model_ready_names_what_is_left():
    v1.get_variable("forgotten", [2])
    scaffold = v1.train.Scaffold(init_op=tf.no_op())
    with pytest.raises(RuntimeError, match=r"Init operations did not make model ready.*forgotten"):
        ChiefSessionCreator(scaffold).create_session()


def test_later_sessions_are_of_the_first_ones_graph(graph):
    weight = v1.get_variable("weight", initializer=1.0)
    creator = ChiefSessionCreator()
    creator.create_session().close()
    with tf.Graph().as_default() as other:
        session = creator.create_session()
        assert session.graph is graph
        assert not other.finalized
    assert session.run(weight) == 1.0
    session.close()


def test_a_worker_trains_on_what_its_chief_initialized():
    weight = v1.get_variable("weight", initializer=4.0)
    local = v1.get_local_variable("local", initializer=5.0)
    master = v1.train.Server.create_local_server().target
    scaffold = v1.train.Scaffold()
    with (
        ChiefSessionCreator(scaffold, master).create_session(),
        WorkerSessionCreator(scaffold, master).create_session() as worker,
    ):
        assert worker.run([weight, local]) == [4.0, 5.0]


def test_a_worker_without_a_chief_gives_up_and_names_what_is_missing():
    v1.get_variable("weight", initializer=4.0)
    with pytest.raises(tf.errors.DeadlineExceededError, match=r"after waiting 0\.5 secs.*: weight"):
        WorkerSessionCreator(max_wait_secs=0.5, poll_secs=0.05).create_session()


def test_threads_stuck_in_the_session_are_released_at_the_end():
    never_filled, filled = tf.queue.FIFOQueue(1, [tf.float32]), tf.queue.FIFOQueue(1, [tf.float32])
    runner = v1.train.QueueRunner(filled, [filled.enqueue(never_filled.dequeue())])
    v1.train.add_queue_runner(runner)
    with v1.train.MonitoredSession(
        ChiefSessionCreator(), [ReleaseThreadsHook(0.1)], stop_grace_period_secs=60
    ):
        pass
    assert not runner.exceptions_raised
