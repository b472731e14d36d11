"""Session creators and `SessionManager`: initialized, restored, waited for."""

import threading
import time

import pytest
import tensorflow as tf

from paramserve import train
from paramserve.cluster.session import BoundedCloseSession

v1 = tf.compat.v1


@pytest.fixture
def weight():
    return v1.get_variable("weight", initializer=3.0)


@pytest.fixture
def checkpoint(weight, logdir):
    """A checkpoint in which the weight is 8."""
    with v1.Session() as session:
        session.run(weight.initializer)
        session.run(weight.assign(8.0))
        return train.Saver().save(session, f"{logdir}/model.ckpt", global_step=5)


def later(secs, call):
    timer = threading.Timer(secs, call)
    timer.start()
    return timer


def initialize(cluster, weight):
    """Initializes the model as a chief does, from another session."""
    graph = weight.graph
    with v1.Session(cluster.worker.target, graph=graph) as session:
        session.run(weight.initializer)


# Creators and the scaffold


@pytest.mark.original_api(
    "tf.train.ChiefSessionCreator", "tf.train.SessionCreator", "tf.train.Scaffold"
)
def test_a_chief_initializes_and_finalizes(weight, graph):
    local = v1.get_local_variable("local", initializer=2.0)
    calls = []
    scaffold = train.Scaffold(init_fn=lambda *arguments: calls.append(arguments))
    creator = train.ChiefSessionCreator(scaffold)
    assert isinstance(creator, train.SessionCreator)
    with creator.create_session() as session:
        assert session.run([weight, local]) == [3.0, 2.0]
    assert calls == [(scaffold, session)]
    assert graph.finalized
    assert scaffold.saver is not None


@pytest.mark.original_api("tf.train.Scaffold")
def test_a_scaffold_takes_ops_of_the_users(weight):
    fed = v1.placeholder(tf.float32, [])
    scaffold = train.Scaffold(
        init_op=weight.assign(fed), init_feed_dict={fed: 6.0}, summary_op=None, saver=train.Saver()
    )
    with train.ChiefSessionCreator(scaffold).create_session() as session:
        assert session.run(weight) == 6.0
    copy = train.Scaffold(copy_from_scaffold=scaffold)
    assert copy.init_op is scaffold.init_op


@pytest.mark.original_api("tf.train.ChiefSessionCreator")
def test_a_chief_restores_the_newest_checkpoint_or_the_one_given(weight, logdir, checkpoint):
    for arguments in ({"checkpoint_dir": logdir}, {"checkpoint_filename_with_path": checkpoint}):
        with train.ChiefSessionCreator(**arguments).create_session() as session:
            assert session.run(weight) == 8.0
    with pytest.raises(ValueError, match="both given"):
        train.ChiefSessionCreator(checkpoint_dir=logdir, checkpoint_filename_with_path=checkpoint)


@pytest.mark.original_api("tf.train.SessionCreator")
def test_a_session_creator_has_to_create_sessions():
    with pytest.raises(TypeError):
        train.SessionCreator()


@pytest.mark.original_api("tf.train.WorkerSessionCreator")
def test_a_worker_goes_on_as_soon_as_its_chief_has_initialized(cluster):
    with tf.device("/job:ps"):
        weight = v1.get_variable("weight", initializer=3.0)
    creator = train.WorkerSessionCreator(None, cluster.worker.target, None, 120)
    timer = later(0.5, lambda: initialize(cluster, weight))
    began = time.monotonic()
    with creator.create_session() as session:
        assert session.run(weight) == 3.0
    # TensorFlow's creator looks again after 30 s.
    assert time.monotonic() - began < 20
    timer.join()


@pytest.mark.original_api("tf.train.WorkerSessionCreator")
def test_a_worker_without_a_chief_gives_up(weight):
    with pytest.raises(tf.errors.DeadlineExceededError, match=r"after waiting 0\.2 secs.*weight"):
        train.WorkerSessionCreator(max_wait_secs=0.2).create_session()


# SessionManager


manager = pytest.mark.original_api("tf.train.SessionManager")


@manager
def test_prepare_session_initializes(weight):
    fed = v1.placeholder(tf.float32, [])
    local = v1.get_local_variable("local", initializer=fed)
    calls = []
    session_manager = train.SessionManager(
        local_init_op=v1.local_variables_initializer(),
        ready_op=v1.report_uninitialized_variables(),
        local_init_feed_dict={fed: 4.0},
        local_init_run_options=v1.RunOptions(timeout_in_ms=60_000),
    )
    with session_manager.prepare_session(
        "", weight.assign(fed), init_feed_dict={fed: 7.0}, init_fn=calls.append
    ) as session:
        assert isinstance(session, BoundedCloseSession)
        assert session.run([weight, local]) == [7.0, 4.0]
        assert calls == [session]


@manager
def test_prepare_session_restores(weight, logdir, checkpoint):
    session_manager = train.SessionManager()
    arguments = {"init_op": weight.initializer, "saver": train.Saver()}
    with session_manager.prepare_session("", checkpoint_dir=logdir, **arguments) as session:
        assert session.run(weight) == 8.0
    with session_manager.prepare_session(
        "", checkpoint_filename_with_path=checkpoint, **arguments
    ) as session:
        assert session.run(weight) == 8.0
    with pytest.raises(ValueError, match="both given"):
        session_manager.prepare_session(
            "", checkpoint_dir=logdir, checkpoint_filename_with_path=checkpoint, **arguments
        )


@manager
def test_prepare_session_waits_for_a_checkpoint(weight, tmp_path, checkpoint, logdir):
    elsewhere = str(tmp_path / "elsewhere")
    timer = later(0.3, lambda: train.update_checkpoint_state(elsewhere, checkpoint, [checkpoint]))
    (tmp_path / "elsewhere").mkdir()
    began = time.monotonic()
    with train.SessionManager(recovery_wait_secs=0.05).prepare_session(
        "", saver=train.Saver(), checkpoint_dir=elsewhere, wait_for_checkpoint=True
    ) as session:
        assert session.run(weight) == 8.0
    assert time.monotonic() - began < 20
    timer.join()


@manager
def test_what_prepare_session_cannot_make_ready_is_named(weight):
    v1.get_variable("forgotten", [2])
    with pytest.raises(RuntimeError, match="no init_op or init_fn or local_init_op was given"):
        train.SessionManager().prepare_session("")
    ready_op = v1.report_uninitialized_variables()
    with pytest.raises(RuntimeError, match=r"did not make model ready.*forgotten.*weight/Assign"):
        train.SessionManager(ready_op=ready_op).prepare_session("", weight.initializer)
    with pytest.raises(RuntimeError, match=r"ready for local_init.*forgotten"):
        train.SessionManager(
            local_init_op=tf.no_op(), ready_for_local_init_op=ready_op
        ).prepare_session("", weight.initializer)
    with pytest.raises(ValueError, match="local_init_op"):
        train.SessionManager(ready_for_local_init_op=ready_op)


@manager
def test_recover_session_says_whether_it_restored(weight, logdir, checkpoint, tmp_path):
    session_manager = train.SessionManager(ready_op=v1.report_uninitialized_variables())
    session, is_restored = session_manager.recover_session("", train.Saver(), logdir)
    assert is_restored
    assert session.run(weight) == 8.0
    session.close()
    nothing = str(tmp_path / "nothing")
    session, is_restored = session_manager.recover_session(
        "", train.Saver(), nothing, wait_for_checkpoint=True, max_wait_secs=0.1
    )
    assert not is_restored
    session.close()


@manager
def test_recover_session_tells_that_a_checkpoint_was_not_enough(weight, logdir, checkpoint):
    saver = train.Saver()
    v1.get_variable("newer", [2])
    session_manager = train.SessionManager(ready_op=v1.report_uninitialized_variables())
    session, is_restored = session_manager.recover_session("", saver, logdir)
    assert not is_restored
    assert session.run(weight) == 8.0


@manager
def test_wait_for_session_waits_for_the_chief(cluster):
    with tf.device("/job:ps"):
        weight = v1.get_variable("weight", initializer=3.0)
    session_manager = train.SessionManager(ready_op=v1.report_uninitialized_variables())
    with pytest.raises(tf.errors.DeadlineExceededError, match=r"0\.2 secs.*weight.*chief"):
        session_manager.wait_for_session(cluster.worker.target, max_wait_secs=0.2)
    timer = later(0.5, lambda: initialize(cluster, weight))
    began = time.monotonic()
    with session_manager.wait_for_session(cluster.worker.target) as session:
        assert session.run(weight) == 3.0
    assert time.monotonic() - began < 20
    timer.join()
