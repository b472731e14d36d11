"""Fixtures of the worker's tests: a chief's services, and servers for real graphs."""

from types import SimpleNamespace

import pytest

from paramserve.chief.input.ledger import ShardLedger
from paramserve.chief.membership.membership import Membership
from paramserve.chief.state import JobState
from paramserve.cluster.applicant import Applicant
from paramserve.cluster.chief_client import MembershipClient
from paramserve.cluster.heartbeat import Heartbeat
from paramserve.cluster.spec import Role
from paramserve.jobs.options import JobOptions
from paramserve.worker.input import LeasedInput
from paramserve.worker.shards_client import ShardsClient
from support.background import Background
from support.control_plane import make_server
from support.local_cluster import build_graph, cluster, cluster_of_one

__all__ = ["build_graph", "cluster", "cluster_of_one"]


@pytest.fixture
def serve_shards(tmp_path):
    """Starts a chief's services: `serve_shards(sync=True)`; the test declares what is read."""
    servers = []

    def start(*, lease_secs=10.0, **more):
        membership = Membership(num_ps=1, lease_secs=lease_secs)
        options = JobOptions(
            model="m.py:build", logdir=str(tmp_path / "logdir"), lease_secs=lease_secs
        )
        state = JobState(options, "job-1", membership)
        ledger = ShardLedger(settle_secs=0.3, **more)
        server, files = make_server(state, ledger)
        server.start()
        servers.append(server)
        address = f"127.0.0.1:{server.port}"
        return SimpleNamespace(
            ledger=ledger,
            membership=membership,
            holds=state.holds,
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
        applicant = Applicant(Role.WORKER, f"{life}.host:1", life, index=index)
        client.register(applicant, max_wait_secs=30.0)
        more = {"max_wait_secs": 30.0, **more}
        heartbeat = Heartbeat(client, max_silence_secs=60.0)
        heartbeat.start()
        source = LeasedInput(ShardsClient(client), heartbeat, lease_secs=lease_secs, **more)
        started.append((source, heartbeat, client))
        return source

    yield start
    for source, heartbeat, client in started:
        source.stop()
        heartbeat.stop()
        client.close()


@pytest.fixture
def background():
    """Runs a call in a thread."""
    return Background
