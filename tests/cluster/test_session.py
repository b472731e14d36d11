"""Sessions whose peers are dead, late or silent: every wait ends, and says what it waited for."""

import itertools
import json
import subprocess
import sys
import threading
import time

import pytest
import tensorflow as tf

from paramserve.cluster.deadline import Deadline
from paramserve.cluster.opening import open_ready_session, open_session
from paramserve.cluster.readiness import find_missing, run_local_init, wait_until_ready
from paramserve.cluster.session import PREEMPTION_ERRORS, BoundedCloseSession
from support.ports import free_cluster, free_port

v1 = tf.compat.v1

# A parameter server, which ends when its standard input does.
PS = """
import json, os, sys
import tensorflow as tf
server = tf.compat.v1.train.Server(json.loads(sys.argv[1]), "ps", 0)
print("up", flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this process and a parameter server that does not run yet."""
    cluster = free_cluster(ps=1, chief=1)
    server = v1.train.Server(cluster, "chief", 0)  # As in a program, it lives as long as this.
    yield cluster, server.target  # noqa: PT022


@pytest.fixture
def start_ps(cluster):
    processes = []

    def start():
        command = [sys.executable, "-c", PS, json.dumps(cluster[0])]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        processes.append(process)
        assert b"up" in process.stdout.readline()
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def variable_on_ps():
    with v1.device("/job:ps/task:0"):
        return v1.get_variable("weight", initializer=1.0)


def returns_in_time(call, secs=30.0):
    """Returns whether `call` ends in time; a thread runs it, so a hang fails only one test."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(secs)
    return not thread.is_alive()


# Closing


def test_a_closed_session_leaves_no_thread_and_takes_no_calls():
    session = BoundedCloseSession()
    one = tf.constant(1)
    assert session.run(one) == 1
    session.close()
    session.close()
    with pytest.raises(RuntimeError, match="closed Session"):
        session.run(one)
    assert "session-reaper" not in [thread.name for thread in threading.enumerate()]


def test_a_bad_argument_fails_as_it_does_in_tensorflow():
    with pytest.raises(TypeError, match="graph"):
        BoundedCloseSession(graph="no graph")


def test_close_within_ends_a_call_that_would_never_end():
    stuck = tf.queue.FIFOQueue(1, [tf.float32]).dequeue()
    session = BoundedCloseSession()
    session.close_within(0.2)
    with pytest.raises(tf.errors.CancelledError):
        session.run(stuck)


def test_neither_closing_nor_dropping_waits_for_a_close_that_blocks(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(v1.Session, "close", lambda session: release.wait(100))
    held = [BoundedCloseSession(close_grace_secs=0.1), BoundedCloseSession()]
    assert returns_in_time(held[0].close)
    assert returns_in_time(held.clear)
    assert not release.is_set()
    release.set()


def test_a_session_of_a_dead_parameter_server_can_be_dropped(cluster, start_ps, graph):
    _, target = cluster
    weight = variable_on_ps()
    init = weight.initializer
    ps = start_ps()
    closed = open_session(target, graph, None, Deadline.after(60))
    dropped = open_session(target, graph, None, Deadline.after(60))
    closed.run(init)
    assert dropped.run(weight) == 1.0
    ps.kill()
    ps.wait()
    # TensorFlow's own close waits for the cleaning up after a step that failed, on the server.
    for session in (closed, dropped):
        with pytest.raises(PREEMPTION_ERRORS):
            session.run(init)
    del session
    assert returns_in_time(closed.close)
    held = [dropped]
    del dropped
    assert returns_in_time(held.clear)
    # The server is back: so is the next session, and the abandoned one's thread ends.
    start_ps()
    with open_session(target, graph, None, Deadline.after(60)) as session:
        session.run(init)
    deadline = Deadline.after(60)
    while "session-reaper" in [thread.name for thread in threading.enumerate()]:
        assert deadline.remaining_secs()
        deadline.sleep(0.1)


# Opening


def test_a_wait_for_a_peer_ends_when_it_is_no_longer_needed(cluster, graph):
    answers = itertools.chain([True, True], itertools.repeat(False))
    # Its host may refuse the connection, or not answer at all.
    with pytest.raises((tf.errors.AbortedError, tf.errors.UnavailableError)):
        open_session(cluster[1], graph, None, Deadline.after(600), is_needed=lambda: next(answers))


def test_a_silent_task_of_the_cluster_ends_the_wait_and_the_graph_can_still_grow(cluster, graph):
    addresses, target = cluster
    variable_on_ps()
    with pytest.raises(tf.errors.DeadlineExceededError) as caught:
        open_session(target, graph, None, Deadline.after(0.5))
    (silent,) = addresses["ps"]
    assert f"after waiting 0.5 secs. No connection to ps:0 ({silent})" in caught.value.message

    def grow():
        with graph.as_default():
            tf.no_op()

    assert returns_in_time(grow)


def test_a_master_that_is_not_there_is_named(graph):
    tf.constant(1)
    master = f"grpc://127.0.0.1:{free_port()}"
    with pytest.raises(tf.errors.DeadlineExceededError, match=f"No connection to .*{master}"):
        open_session(master, graph, None, Deadline.after(0.5))


def test_the_tasks_of_a_propagated_cluster_are_named(graph):
    tf.constant(1)
    server = v1.train.Server({"local": ["127.0.0.1:0"]}, "local", 0)
    config = v1.ConfigProto()
    config.cluster_def.job.add(name="worker").tasks[0] = server.target.removeprefix("grpc://")
    dead = f"127.0.0.1:{free_port()}"
    config.cluster_def.job.add(name="ps").tasks[0] = dead
    with pytest.raises(tf.errors.DeadlineExceededError, match=rf"No connection to ps:0 \({dead}\)"):
        open_session(server.target, graph, config, Deadline.after(0.5))


def test_a_peer_lost_while_getting_ready_costs_a_new_session(graph):
    sessions = []

    def make_ready(session):
        sessions.append(session)
        if len(sessions) < 3:
            raise tf.errors.UnavailableError(None, None, "the peer went away")

    assert open_ready_session("", graph, None, make_ready, Deadline.after(60)) is sessions[2]
    with pytest.raises(RuntimeError, match="closed Session"):
        sessions[0].run(tf.constant(1))


def test_losing_peers_ends_with_the_deadline(graph):
    def make_ready(session):
        raise tf.errors.UnavailableError(None, None, "the peer went away")

    with pytest.raises(tf.errors.DeadlineExceededError, match="the peer went away"):
        open_ready_session("", graph, None, make_ready, Deadline.after(0.3))


def test_other_errors_end_it_at_once(graph):
    def make_ready(session):
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        open_ready_session("", graph, None, make_ready, Deadline.after(3600))


# Readiness


def test_what_is_missing_is_named_until_it_is_there():
    weight = v1.get_variable("weight", [2])
    local = v1.get_local_variable("local", initializer=3.0)
    scaffold = v1.train.Scaffold().finalize()
    deadline = Deadline.after(60)
    with BoundedCloseSession() as session:
        assert find_missing(session, scaffold.ready_op, deadline) == (
            "Variables not initialized: weight, local"
        )
        assert run_local_init(session, scaffold, deadline) == "Variables not initialized: weight"
        session.run(weight.initializer)
        assert run_local_init(session, scaffold, deadline) is None
        assert session.run(local) == 3.0
        assert find_missing(session, scaffold.ready_op, deadline) is None


@pytest.mark.parametrize("make", [lambda: None, tf.no_op, lambda: tf.constant([1, 2])])
def test_an_op_that_names_nothing_is_ready(make):
    op = make()
    with BoundedCloseSession() as session:
        assert find_missing(session, op, Deadline.after(60)) is None


def test_an_op_that_needs_a_variable_waits_for_it():
    with tf.control_dependencies([v1.get_variable("weight", [2]).read_value()]):
        ready_op = tf.constant([], tf.string)
    with BoundedCloseSession() as session:
        assert "weight" in find_missing(session, ready_op, Deadline.after(60))


def test_an_op_that_never_answers_ends_the_wait():
    ready_op = tf.queue.FIFOQueue(1, [tf.string]).dequeue()
    error = pytest.raises(tf.errors.DeadlineExceededError, match="did not say whether")
    with BoundedCloseSession() as session, error:
        find_missing(session, ready_op, Deadline.after(0.2))


def test_waiting_ends_when_somebody_initializes_the_model():
    weight = v1.get_variable("weight", [2])
    initializer = weight.initializer
    scaffold = v1.train.Scaffold().finalize()
    with BoundedCloseSession() as session:
        later = threading.Timer(0.5, session.run, [initializer])
        later.start()
        wait_until_ready(session, scaffold, Deadline.after(60))
        later.join()


def test_a_variable_that_the_chief_does_not_have_there_is_named_with_its_device(cluster, start_ps):
    start_ps()
    variable_on_ps()
    v1.train.get_or_create_global_step()
    scaffold = v1.train.Scaffold().finalize()
    graph, deadline = v1.get_default_graph(), Deadline.after(60)
    with open_session(cluster[1], graph, None, deadline) as session:
        missing = find_missing(session, scaffold.ready_op, deadline)
    assert "weight on /job:ps/task:0" in missing
    assert "global_step on no device in particular" in missing


def test_waiting_in_vain_says_for_what():
    v1.get_variable("weight", [2])
    scaffold = v1.train.Scaffold().finalize()
    error = pytest.raises(tf.errors.DeadlineExceededError, match="not initialized: weight")
    began = time.monotonic()
    with BoundedCloseSession() as session, error:
        wait_until_ready(session, scaffold, Deadline.after(0.5))
    assert time.monotonic() - began < 30
