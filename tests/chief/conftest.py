"""Fixtures of the chief's tests: a control plane on a free port, and servers for real graphs."""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from paramserve.chief.membership.membership import Membership
from paramserve.chief.paced_call import make_nothing
from paramserve.chief.process import job_config
from paramserve.chief.services.membership_servicer import MembershipServicer
from paramserve.chief.services.server import ControlServer
from paramserve.chief.services.status_servicer import StatusServicer
from paramserve.chief.state import JobState
from paramserve.cluster.spec import Role, Task
from paramserve.jobs.options import JobOptions
from paramserve.model.graph import GraphOptions, build_train_graph
from paramserve.model.spec import TaskContext, TrainSpec
from support.local_cluster import cluster, cluster_of_one

__all__ = ["cluster", "cluster_of_one"]


@pytest.fixture
def make_state():
    """Makes the state of a job, with options that suit tests."""

    def make(**values):
        defaults = {"model": "m.py:build", "logdir": "runs/test", "heartbeat_secs": 0.05}
        options = JobOptions(**{**defaults, **values})
        membership = Membership(num_ps=options.num_ps, lease_secs=options.lease_secs)
        return JobState(options, "job-1", membership)

    return make


@pytest.fixture
def serve(make_state):
    """Starts control planes: `serve(num_ps=2)`; each has `state`, `server` and `address`."""
    servers = []

    def start(*, port=0, host="127.0.0.1", on_change=make_nothing, **values):
        state = make_state(**values)
        membership = MembershipServicer(state, job_config(state.options, "job-1"), on_change)
        server = ControlServer(membership, StatusServicer(state), port, host=host)
        server.start()
        servers.append(server)
        return SimpleNamespace(
            state=state,
            membership=state.membership,
            server=server,
            address=f"127.0.0.1:{server.port}",
        )

    yield start
    for server in servers:
        server.stop(0.1)


@pytest.fixture
def build_graph():
    """Builds the graph of the chief or of a worker, for one worker unless more are wanted."""

    def make(build, role=Role.CHIEF, *, sync=False, workers=1, replicas=None, index=0, **more):
        return build_train_graph(
            build,
            TaskContext(role, index, workers, 1, sync),
            worker_device=Task(role, index).device,
            options=GraphOptions(
                aggregate=workers if replicas is None else replicas,
                **{name: more.pop(name) for name in ("defaults", "data_plane") if name in more},
            ),
            **more,
        )

    return make


@pytest.fixture
def counting_model():
    """A model whose weight counts the steps down, and which has a slot."""

    def build(task):
        weight = tf.compat.v1.get_variable("w", [3], initializer=tf.zeros_initializer())
        optimizer = tf.compat.v1.train.MomentumOptimizer(1.0, 0.0)
        return TrainSpec(loss=tf.reduce_sum(weight), optimizer=optimizer, examples=5)

    return build
