"""A repeated run: prepared once, with the same results as a session's run."""

import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from paramserve.cluster.repeated_runs import MOST_RUNS, RepeatedRuns
from paramserve.cluster.session import BoundedCloseSession

v1 = tf.compat.v1


@pytest.fixture
def session():
    with tf.Graph().as_default() as graph, BoundedCloseSession(graph=graph) as session:
        yield session


def test_every_structure_is_returned_as_a_session_does(session):
    two, name = tf.constant([2.0]), tf.constant("x").name
    variable = v1.get_variable("v", initializer=3.0)
    session.run(variable.initializer)
    for fetches in (
        *(two, two.op, name, variable.read_value(), [two], (two, two.op)),
        *({"a": two, "b": {}}, {"a": [two, {"b": name}], "c": two.op}, [], {}),
    ):
        for _ in range(2):
            prepared, plain = session.run(fetches), v1.Session.run(session, fetches, options=None)
            assert repr(prepared) == repr(plain)
            assert type(prepared) is type(plain)


def test_a_run_sees_the_state_of_its_time(session):
    counter = v1.get_variable("n", initializer=0)
    session.run(counter.initializer)
    add = counter.assign_add(1)
    assert [session.run({"n": add})["n"] for _ in range(3)] == [1, 2, 3]


def test_what_is_fed_or_traced_is_not_repeated(session):
    fed = v1.placeholder(tf.float32, [])
    doubled = 2.0 * fed
    assert [session.run(doubled, {fed: x}) for x in (1.0, 2.0)] == [2.0, 4.0]
    with pytest.raises(tf.errors.InvalidArgumentError, match="You must feed a value"):
        session.run(doubled)
    metadata = v1.RunMetadata()
    options = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE)
    session.run(tf.constant(1.0), options=options, run_metadata=metadata)
    assert metadata.step_stats.dev_stats


def test_the_graph_may_grow_between_runs(session):
    assert session.run([tf.constant(1.0)]) == [1.0]
    assert session.run([tf.constant(2.0)]) == [2.0]


def test_an_error_names_the_op(session):
    bad = tf.debugging.check_numerics(tf.constant(np.nan), "loss is bad", name="check_loss")
    for _ in range(2):
        with pytest.raises(tf.errors.InvalidArgumentError, match="check_loss") as error:
            session.run([bad])
        assert error.value.op is not None


def test_a_closed_session_says_so(session):
    one = tf.constant(1.0)
    session.run(one)
    session.close()
    with pytest.raises(RuntimeError, match="closed Session"):
        session.run(one)


def test_few_runs_are_kept(session):
    made = []
    runs = RepeatedRuns(lambda fetches: made.append(fetches) or session.make_callable(fetches))
    constants = [tf.constant(float(i)) for i in range(3 * MOST_RUNS)]
    for each in constants:
        assert runs.find([each])() == runs.find([each])()
    assert len(made) == len(constants)
    assert len(runs._runs) <= MOST_RUNS


def test_a_run_can_be_registered_before_it_is_made(session):
    counter = v1.get_variable("n", initializer=0)
    session.run(counter.initializer)
    fetches = {"n": counter.assign_add(1), "more": [tf.constant(2.0), counter.initializer.name]}
    session.register_run(fetches)
    assert session.run(counter) == 0, "nothing ran"
    found = session.run(fetches)
    assert type(found) is dict
    assert found["more"] == [2.0, None]
    assert session.newest_run is fetches


def test_registering_a_run_leaves_other_threads_alone():
    """One of them sends the heartbeats."""
    with tf.Graph().as_default() as graph:
        total = tf.constant(0.0)
        for _ in range(3000):
            total = tf.sin(total) + 1.0
    ticks, is_over = [], threading.Event()

    def tick():
        while not is_over.wait(0.001):
            ticks.append(time.monotonic())

    server = v1.train.Server.create_local_server()
    with BoundedCloseSession(server.target, graph) as session:
        session.run(graph.get_operations()[0])  # Sends the graph.
        thread = threading.Thread(target=tick)
        thread.start()
        began = time.monotonic()
        session.register_run(total)
        ended = time.monotonic()
        is_over.set()
        thread.join()
    assert sum(began < each < ended for each in ticks) >= 5
