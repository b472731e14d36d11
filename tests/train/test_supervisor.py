"""`Supervisor`: services in threads, short waits, and an end that no stuck thread holds up."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1

pytestmark = [
    pytest.mark.original_api("tf.train.Supervisor"),
    pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture
def step_op():
    return train.get_or_create_global_step().assign_add(1)


def stuck_queue_runner():
    never, filled = (tf.queue.FIFOQueue(1, [tf.float32]) for _ in range(2))
    train.add_queue_runner(train.QueueRunner(filled, [filled.enqueue(never.dequeue())]))


def test_it_initializes_saves_summarizes_and_counts(step_op, logdir, events, summaries, graph):
    v1.summary.scalar("answer", 42.0)
    supervisor = train.Supervisor(logdir=logdir)
    assert graph.finalized
    with supervisor.managed_session() as session:
        while session.run(step_op) < 5:
            pass
        supervisor.saver.save(session, supervisor.save_path, global_step=supervisor.global_step)
    assert supervisor.should_stop()
    # The newest by the state file may be the timer's, whose thread saves at the same time.
    assert train.load_variable(f"{logdir}/model.ckpt-5", "global_step") == 5
    statuses = [event.session_log.status for event in events(logdir)]
    assert v1.SessionLog.START in statuses
    assert statuses[-1] == v1.SessionLog.STOP
    assert "answer" in summaries(logdir)


def test_the_graph_may_be_given(step_op, graph):
    def run():
        supervisor = train.Supervisor(graph=graph)
        with supervisor.managed_session() as session:
            return session.run(step_op)

    with ThreadPoolExecutor() as pool:
        assert pool.submit(run).result() == 1


def test_it_restores(step_op, logdir):
    with v1.Session() as session:
        session.run(train.get_global_step().assign(7))
        tf.io.gfile.makedirs(logdir)
        train.Saver().save(session, f"{logdir}/model.ckpt", global_step=7)
    with train.Supervisor(logdir=logdir, save_model_secs=0).managed_session() as session:
        assert session.run(step_op) == 8


def test_init_fn_and_feeds_and_local_variables():
    fed = v1.placeholder(tf.float32, [])
    weight = v1.get_variable("weight", initializer=fed)
    local = v1.get_local_variable("local", initializer=2.0)
    calls = []
    supervisor = train.Supervisor(init_feed_dict={fed: 6.0}, init_fn=calls.append)
    session = supervisor.prepare_or_wait_for_session()
    assert session.run([weight, local]) == [6.0, 2.0]
    assert calls == [session]
    supervisor.stop()
    session.close()


def test_threads_stop_with_it(step_op):
    supervisor = train.Supervisor()
    calls = []
    with supervisor.managed_session() as session:
        looper = supervisor.loop(0.001, lambda: calls.append(session.run(step_op)))
        while len(calls) < 3:
            time.sleep(0.001)
    assert not looper.is_alive()
    assert calls[:3] == [1, 2, 3]


def test_errors_are_raised_at_the_end_and_the_end_of_the_input_is_none(step_op):
    supervisor = train.Supervisor()
    with pytest.raises(KeyError), supervisor.managed_session() as session:
        raise KeyError("a bug")
    with pytest.raises(RuntimeError, match="closed Session"):
        session.run(step_op)
    with supervisor.managed_session() as session:
        assert session.run(step_op) == 1
        raise tf.errors.OutOfRangeError(None, None, "the end")


def test_a_stuck_queue_runner_does_not_hold_up_the_end_of_a_managed_session(step_op):
    stuck_queue_runner()
    supervisor = train.Supervisor(release_secs=0.1)
    began = time.monotonic()
    with supervisor.managed_session() as session:
        assert session.run(step_op) == 1
    # The grace period is 120 s.
    assert time.monotonic() - began < 60


def test_after_stop_the_session_still_runs_although_a_queue_runner_is_stuck(step_op):
    stuck_queue_runner()
    supervisor = train.Supervisor(release_secs=0.1)
    session = supervisor.prepare_or_wait_for_session()
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 60
    assert session.run(step_op) == 1
    session.close()


def test_other_threads_that_do_not_stop_are_an_error(step_op):
    stuck_queue_runner()
    supervisor = train.Supervisor(stop_grace_secs=0.2)
    session = supervisor.prepare_or_wait_for_session()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="deaf", daemon=True)
    thread.start()
    with pytest.raises(RuntimeError, match=r"threads still running after 0.2 s: deaf\."):
        supervisor.stop([thread])
    supervisor.stop([thread], ignore_live_threads=True)
    end.set()
    thread.join()
    session.close()


def test_a_worker_waits_for_the_chief(cluster):
    def build():
        with v1.device(train.replica_device_setter(cluster=cluster.spec)):
            return train.get_or_create_global_step().assign_add(1)

    step_op = build()
    worker = train.Supervisor(is_chief=False)
    with pytest.raises(tf.errors.DeadlineExceededError, match="global_step"):
        worker.prepare_or_wait_for_session(cluster.worker.target, max_wait_secs=0.2)

    def be_chief():
        with tf.Graph().as_default():
            build()
            train.Supervisor().prepare_or_wait_for_session(cluster.ps.target).close()

    timer = threading.Timer(0.5, be_chief)
    timer.start()
    began = time.monotonic()
    with worker.managed_session(cluster.worker.target) as session:
        assert session.run(step_op) == 1
    # TensorFlow's looks again after 30 s.
    assert time.monotonic() - began < 20
    timer.join()


def test_a_ref_variable_needs_a_device_in_a_worker():
    v1.get_variable("weight", [], use_resource=False)
    with pytest.raises(ValueError, match="must have their device set"):
        train.Supervisor(is_chief=False)


@pytest.mark.parametrize("given", [True, False])
def test_a_global_step_that_is_no_scalar_is_refused(given, graph):
    step = v1.get_variable("step", initializer=[0], dtype=tf.int32)
    if not given:
        v1.add_to_collection(v1.GraphKeys.GLOBAL_STEP, step)
    with pytest.raises(TypeError, match=r"is not scalar.*get_or_create_global_step"):
        train.Supervisor(**({"global_step": step} if given else {}))
    assert not graph.finalized


def test_a_global_step_of_the_users_is_found_by_its_name(logdir, events):
    step = v1.get_variable("global_step", initializer=5, use_resource=True)
    supervisor = train.Supervisor(logdir=logdir)
    assert supervisor.global_step is step
    with supervisor.managed_session():
        pass
    assert 5 in [event.step for event in events(logdir)]


def test_everything_may_be_turned_off(logdir, tmp_path):
    one = tf.constant(1.0)
    supervisor = train.Supervisor(
        ready_op=None,
        init_op=None,
        local_init_op=None,
        summary_op=None,
        saver=None,
        global_step=None,
        summary_writer=None,
        init_fn=lambda session: None,
        logdir=logdir,
    )
    with supervisor.managed_session() as session:
        assert session.run(one) == 1.0
    assert supervisor.global_step is None
    assert not list(tmp_path.glob("model/*ckpt*"))


@pytest.mark.original_api("tf.train.basic_train_loop")
def test_the_basic_loop_runs_a_function_until_it_is_stopped(step_op):
    supervisor = train.Supervisor()
    seen = []

    def train_step(session, limit, note):
        seen.append((int(session.run(step_op)), note))
        if len(seen) == limit:
            supervisor.request_stop()

    train.basic_train_loop(supervisor, train_step, args=(3,), kwargs={"note": "x"})
    assert seen == [(1, "x"), (2, "x"), (3, "x")]


@pytest.mark.original_api("tf.train.basic_train_loop")
def test_the_basic_loop_begins_again_after_a_lost_server(step_op):
    supervisor = train.Supervisor()
    seen = []

    def train_step(session):
        seen.append(int(session.run(step_op)))
        if len(seen) == 2:
            raise tf.errors.AbortedError(None, None, "lost")
        if len(seen) == 4:
            supervisor.request_stop()

    train.basic_train_loop(supervisor, train_step)
    # Without a directory, a new session begins at the beginning.
    assert seen == [1, 2, 1, 2]
