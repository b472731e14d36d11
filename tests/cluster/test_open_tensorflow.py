"""The open servers of TensorFlow, as in SECURITY.md: no token protects them."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.cluster.runtime import session_config, start_server
from paramserve.cluster.spec import ClusterView, Member, Role, Task


class Caller:
    """A process that knows the address of a parameter server, and has no token."""

    def __init__(self, view, task):
        server = start_server("127.0.0.1")
        with tf.Graph().as_default() as graph, tf.device("/job:ps/task:0"):
            weight = tf.compat.v1.get_variable("w", [3], use_resource=True)
            self._value = tf.compat.v1.placeholder(tf.float32, [3])
            self._read, self._write = weight.value(), weight.assign(self._value)
        config = session_config(view, task, server.address)
        self.session = tf.compat.v1.Session(server.target, graph, config)

    def read(self):
        return self.session.run(self._read)

    def write(self, value):
        self.session.run(self._write, {self._value: value})


@pytest.fixture
def call():
    """Makes callers of one parameter server, each another task."""
    view = ClusterView(1, (Member(start_server("127.0.0.1").address, "p"),))
    callers = []

    def call(role, index):
        callers.append(Caller(view, Task(role, index)))
        return callers[-1]

    yield call
    for each in callers:
        each.session.close()


def test_a_stranger_reads_and_writes_a_weight_without_a_token(call):
    """Any caller that reaches the port; so addresses, policies and tunnels have to close it."""
    chief, stranger = call(Role.CHIEF, 0), call(Role.WORKER, 7)
    chief.write([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(stranger.read(), [1.0, 2.0, 3.0])
    stranger.write([0.0, 0.0, 0.0])
    np.testing.assert_array_equal(chief.read(), [0.0, 0.0, 0.0])
