"""Sessions that lost a parameter server leave nothing behind: neither threads nor connections."""

import collections
import contextlib
import gc
import socket
import threading
import time

import psutil
import pytest
import tensorflow as tf

from paramserve.cluster.deadline import Deadline
from paramserve.cluster.leavable_session import LeavableSession
from paramserve.cluster.opening import open_session
from paramserve.cluster.runtime import session_config, start_server
from paramserve.cluster.session import PREEMPTION_ERRORS, BoundedCloseSession
from paramserve.cluster.spec import ClusterView, Member, Role, Task

v1 = tf.compat.v1


class Address:
    """Another address of a server; when it is gone, a client that uses it finds the server gone."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends = []
        self.name = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def go(self):
        for end in (self._listener, *self._ends):
            self._close(end)

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._ends += [near, far]
            self._start(self._pass_on, near, far)
            self._start(self._pass_on, far, near)

    def _pass_on(self, source, sink):
        try:
            while data := source.recv(2**16):
                sink.sendall(data)
        except OSError:
            pass
        self._close(source)
        self._close(sink)

    @staticmethod
    def _close(end):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()

    @staticmethod
    def _start(call, *arguments):
        threading.Thread(target=call, args=arguments, name="address", daemon=True).start()


@pytest.fixture(scope="module")
def servers():
    return [start_server("127.0.0.1") for _ in range(3)]


@pytest.fixture(scope="module")
def model():
    """A graph over two servers, and a step of it; `blocked` waits forever on the second."""
    graph = tf.Graph()
    with graph.as_default():
        one = tf.ones([10])
        with tf.device("/job:ps/task:0"):
            first = v1.get_variable("a", [10], initializer=v1.zeros_initializer())
        with tf.device("/job:ps/task:1"):
            second = v1.get_variable("b", [10], initializer=v1.zeros_initializer())
            never = v1.FIFOQueue(1, tf.float32, shared_name="never").dequeue()
        step = tf.group(first.assign_add(one), second.assign_add(one))
        init = v1.global_variables_initializer()
        ops = {"init": init, "step": step, "blocked": tf.group(step, never)}
    graph.finalize()
    return graph, ops


def lose_a_server(servers, model, kind, op):
    """A session's whole life: it makes a step, loses a server, is left and closed."""
    graph, ops = model
    address = Address(servers[1].address)
    view = ClusterView(1, (Member(servers[0].address, "a"), Member(address.name, "b")))
    config = session_config(view, Task(Role.WORKER, 0), servers[2].address)
    session = open_session(servers[2].target, graph, config, Deadline.after(60), kind)
    session.run(ops["init"])
    session.run(ops["step"])
    threading.Timer(0.0 if op == "step" else 0.3, address.go).start()
    with pytest.raises(PREEMPTION_ERRORS):
        run_for_ever(session, ops[op])
    session.close()


def run_for_ever(session, op):
    while True:
        session.run(op)


def held():
    gc.collect()
    names = collections.Counter(thread.name for thread in threading.enumerate())
    process = psutil.Process()
    return names["session-reaper"] + names["session-runner"], process.num_threads()


@pytest.mark.parametrize(
    ("kind", "op"),
    [(BoundedCloseSession, "step"), (LeavableSession, "blocked")],
)
def test_a_session_whose_server_is_gone_ends_in_full(servers, model, kind, op):
    lose_a_server(servers, model, kind, op)  # One-time setup.
    time.sleep(0.5)
    of_ours, in_all = held()
    for _ in range(4):
        lose_a_server(servers, model, kind, op)
    deadline = time.monotonic() + 60
    while held()[0] > of_ours and time.monotonic() < deadline:
        time.sleep(0.2)
    assert held()[0] <= of_ours
    assert held()[1] <= in_all + 3
