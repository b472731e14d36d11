"""Fixtures of the worker's tests: a chief's services, and servers for real graphs."""

import threading
from types import SimpleNamespace

import pytest
import tensorflow as tf

from paramserve.chief.checkpoints.holds import Holds
from paramserve.chief.input.file_counts import FileCounts
from paramserve.chief.input.ledger import ShardLedger
from paramserve.chief.membership.membership import Membership
from paramserve.chief.process import job_config
from paramserve.chief.services.membership_servicer import MembershipServicer
from paramserve.chief.services.server import ControlServer
from paramserve.chief.services.shards_servicer import ShardsServicer
from paramserve.chief.services.status_servicer import StatusServicer
from paramserve.chief.state import JobState
from paramserve.cluster.chief_client import MembershipClient
from paramserve.cluster.logdir.interface import open_logdir
from paramserve.cluster.runtime import session_config, start_server
from paramserve.cluster.session import BoundedCloseSession
from paramserve.cluster.spec import ClusterView, Member, Role, Task
from paramserve.jobs.options import JobOptions
from paramserve.model.graph import build_train_graph, container_name
from paramserve.model.spec import TaskContext
from paramserve.worker.input import LeasedInput
from paramserve.worker.shards_client import ShardsClient


@pytest.fixture
def serve_shards(tmp_path):
    """Starts a chief's services: `serve_shards(sync=True)`; the test declares what is read."""
    servers = []

    def start(*, lease_secs=10.0, **more):
        membership = Membership(num_ps=1, lease_secs=lease_secs)
        options = JobOptions(model="m.py:build", logdir="runs/test", lease_secs=lease_secs)
        state = JobState(options, "job-1", membership)
        ledger = ShardLedger(settle_secs=0.3, **more)
        holds = Holds(lambda: {(r.task, r.incarnation) for r in membership.up(Role.WORKER)})
        files = FileCounts(
            *(open_logdir(str(tmp_path / "logdir")), membership),
            is_resumed=False,
            max_wait_secs=60.0,
            say=lambda _: None,
            is_interrupted=lambda: False,
        )
        server = ControlServer(
            MembershipServicer(state, job_config(options, "job-1")),
            StatusServicer(state),
            0,
            ShardsServicer(ledger, membership, holds, files),
        )
        server.start()
        servers.append(server)
        address = f"127.0.0.1:{server.port}"
        return SimpleNamespace(
            ledger=ledger,
            membership=membership,
            holds=holds,
            files=files,
            server=server,
            address=address,
        )

    yield start
    for server in servers:
        server.stop(0.1)


@pytest.fixture
def join():
    """Registers a worker and makes its input: `join(chief, "life")`."""
    started = []

    def start(chief, life, *, index=None, lease_secs=10.0, **more):
        client = MembershipClient(chief.address)
        client.register(
            Role.WORKER,
            address=f"{life}.host:1",
            incarnation=life,
            index=index,
            max_wait_secs=30.0,
        )
        more = {"max_wait_secs": 30.0, **more}
        source = LeasedInput(ShardsClient(client), lease_secs=lease_secs, **more)
        started.append((source, client))
        return source

    yield start
    for source, client in started:
        source.stop()
        client.close()


class Cluster:
    """One parameter server, a chief and workers, all in this process."""

    def __init__(self):
        self._ps = start_server("127.0.0.1")
        self._view = ClusterView(1, (Member(self._ps.address, "life"),))
        self._servers = {}
        self._sessions = []

    def build(self, build, role=Role.CHIEF, index=0, *, workers=2, sync=False, **more):
        context = TaskContext(role, index, workers, 1, sync, **more)
        return build_train_graph(
            build,
            context,
            worker_device=Task(role, index).device,
            replicas_to_aggregate=workers,
        )

    def session(self, graph, role=Role.CHIEF, index=0):
        """A session of a task; it is closed when the test is over."""
        task = Task(role, index)
        server = self._servers.get(task) or start_server("127.0.0.1")
        self._servers[task] = server
        config = session_config(self._view, task, server.address)
        self._sessions.append(BoundedCloseSession(server.target, graph, config))
        return self._sessions[-1]

    def reset(self):
        for session in self._sessions:
            session.close()
        self._sessions.clear()
        for server in (self._ps, *self._servers.values()):
            tf.compat.v1.Session.reset(server.target, ["localhost", container_name(0)])


@pytest.fixture(scope="session")
def one_cluster():
    return Cluster()


@pytest.fixture
def cluster(one_cluster):
    yield one_cluster
    one_cluster.reset()


class Background:
    """A call in a thread; its error is raised by `result`."""

    def __init__(self, call):
        self._value = self._error = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call):
        try:
            self._value = call()
        except BaseException as error:
            self._error = error

    @property
    def is_running(self):
        return self._thread.is_alive()

    def result(self):
        self._thread.join(60)
        assert not self._thread.is_alive(), "the call did not return"
        if self._error is not None:
            raise self._error
        return self._value


@pytest.fixture
def background():
    """Runs a call in a thread."""
    return Background
