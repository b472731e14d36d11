"""Graphs of many variables: the cost of a task grows with their number, and no faster."""

import sys

import pytest
import tensorflow as tf

from paramserve.cluster.spec import Role
from paramserve.data_plane.options import DataPlane
from paramserve.data_plane.prepare import prepare
from paramserve.model.spec import TrainSpec

v1 = tf.compat.v1


def model_of(count):
    def build(task):
        weights = [
            v1.get_variable(f"w{i}", [8], initializer=v1.ones_initializer()) for i in range(count)
        ]
        loss = tf.add_n([tf.reduce_sum(weight * weight) for weight in weights])
        return TrainSpec(loss=loss, optimizer=v1.train.AdagradOptimizer(0.1))

    return build


def count_calls(work):
    """Counts the calls of functions, Python's and C's: independent of the machine's load."""
    calls = 0

    def note(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("storage", ["plain", "flat"])
@pytest.mark.parametrize("role", [Role.CHIEF, Role.WORKER])
def test_twice_as_many_take_twice_as_much(build_graph, role, storage, sync):
    def start(count):
        built = build_graph(model_of(count), role=role, num_ps=2, sync=sync)
        prepare(built.graph, DataPlane(storage=storage), built.steps)

    start(4)  # One-time setup of the process.
    few, more, many = (count_calls(lambda n=n: start(n)) for n in (10, 20, 40))
    assert (many - more) < 1.1 * 2 * (more - few)


def test_a_worker_makes_nothing_that_only_the_chief_runs(build_graph):
    types = {}
    for role in (Role.CHIEF, Role.WORKER):
        graph = build_graph(model_of(5), role=role, num_ps=2).graph
        types[role] = [op.type for op in graph.get_operations()]
    assert {"SaveV2", "RestoreV2"} <= set(types[Role.CHIEF])
    assert not {"SaveV2", "RestoreV2"} & set(types[Role.WORKER])


def test_a_worker_notices_that_a_server_is_empty(two_ps_cluster, build_graph):
    chief = build_graph(model_of(5), role=Role.CHIEF, num_ps=2)
    worker = build_graph(model_of(5), role=Role.WORKER, num_ps=2)
    chief_session = two_ps_cluster.session(chief.graph)
    worker_session = two_ps_cluster.session(worker.graph, Role.WORKER, 0)
    assert len(worker_session.run(worker.uninitialized)) == 2
    chief_session.run(chief.init_op)
    assert len(worker_session.run(worker.uninitialized)) == 0
