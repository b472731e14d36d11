"""Fixtures of the pruning tests: a graph of its own for each test, and a session of it."""

import pytest
import tensorflow as tf

v1 = tf.compat.v1


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(7)
        yield graph


@pytest.fixture
def start(graph):
    """Opens a session with all variables initialized: `session = start()`."""
    sessions = []

    def start():
        sessions.append(v1.Session(graph=graph))
        sessions[-1].run(v1.global_variables_initializer())
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()


@pytest.fixture(params=[True, False], ids=["resource", "ref"])
def use_resource(request):
    """Makes `get_variable` create variables of one kind, then of the other."""
    before = v1.resource_variables_enabled()
    (v1.enable_resource_variables if request.param else v1.disable_resource_variables)()
    yield request.param
    (v1.enable_resource_variables if before else v1.disable_resource_variables)()
