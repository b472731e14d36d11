"""Fixtures: a cluster of the service in one process, on which real graphs run."""

import pytest
import tensorflow as tf

from paramserve.cluster.runtime import session_config, start_server
from paramserve.cluster.session import BoundedCloseSession
from paramserve.cluster.spec import ClusterView, Member, Role, Task
from paramserve.model.graph import GraphOptions, build_train_graph, container_name
from paramserve.model.spec import TaskContext


class LocalCluster:
    """Parameter servers and other tasks, all in this process, behind real TensorFlow servers."""

    def __init__(self, num_ps):
        self.num_ps = num_ps
        self._ps = [start_server("127.0.0.1") for _ in range(num_ps)]
        self._tasks = {}
        self._sessions = []

    def session(self, graph, role=Role.CHIEF, index=0):
        """A session of a task; it is closed when the test is over."""
        task = Task(role, index)
        server = self._tasks.setdefault(task, None) or start_server("127.0.0.1")
        self._tasks[task] = server
        view = ClusterView(1, tuple(Member(ps.address, "life") for ps in self._ps))
        config = session_config(view, task, server.address)
        self._sessions.append(BoundedCloseSession(server.target, graph, config))
        return self._sessions[-1]

    def reset(self):
        """Closes the sessions; every server forgets its variables and queues."""
        for session in self._sessions:
            session.close()
        self._sessions.clear()
        for server in (*self._ps, *self._tasks.values()):
            tf.compat.v1.Session.reset(server.target, ["localhost", container_name(0)])


@pytest.fixture(scope="session")
def cluster_of_one():
    return LocalCluster(1)


@pytest.fixture(scope="session")
def cluster_of_two():
    return LocalCluster(2)


@pytest.fixture
def cluster(cluster_of_one):
    """Makes a cluster of one parameter server and as many other tasks as wanted."""
    yield cluster_of_one
    cluster_of_one.reset()


@pytest.fixture
def two_ps_cluster(cluster_of_two):
    yield cluster_of_two
    cluster_of_two.reset()


@pytest.fixture
def build_graph():
    """Builds the graph of one task: `build_graph(build, role=Role.WORKER, index=1)`."""

    def make(build, *, role=Role.CHIEF, index=0, num_ps=1, num_workers=1, sync=False, **more):
        given = {name: more.pop(name) for name in ("params", "input") if name in more}
        context = TaskContext(role, index, num_workers, num_ps, sync, **given)
        return build_train_graph(
            build,
            context,
            worker_device=Task(role, index).device,
            options=GraphOptions(
                aggregate=more.pop("replicas", num_workers),
                **{name: more.pop(name) for name in ("defaults", "data_plane") if name in more},
            ),
            **more,
        )

    return make
