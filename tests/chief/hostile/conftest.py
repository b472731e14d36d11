"""A control plane in a process of its own, and a task that has to stay in its job meanwhile."""

import uuid

import pytest

from paramserve.cluster.applicant import Applicant
from paramserve.cluster.chief_client import MembershipClient
from paramserve.cluster.heartbeat import Heartbeat
from paramserve.cluster.spec import Role
from paramserve.cluster.status_client import StatusClient
from support.control_plane import END_SECS, ControlPlane


class Bystander:
    """A worker that sends heartbeats, and a person who asks for the status."""

    def __init__(self, plane):
        self._plane = plane
        self._client = MembershipClient(plane.address)
        applicant = Applicant(
            Role.WORKER, address="bystander.host:2222", incarnation=uuid.uuid4().hex
        )
        self.registration = self._client.register(applicant, max_wait_secs=END_SECS)
        self._heartbeat = Heartbeat(self._client, max_silence_secs=END_SECS)
        self._heartbeat.start()

    def check(self):
        """Shows that it is in the job still, and that it is answered."""
        assert self._plane.is_running
        self._heartbeat.check()
        with StatusClient(self._plane.address, timeout_secs=END_SECS) as client:
            tasks = {task.incarnation: task for task in client.status().tasks}
        assert tasks[self.registration.incarnation].state == "up"
        assert tasks[self.registration.incarnation].heartbeat_age_secs < END_SECS

    def stop(self):
        self._heartbeat.stop()
        self._client.close()


@pytest.fixture(scope="session")
def plane(tmp_path_factory):
    plane = ControlPlane(tmp_path_factory.mktemp("hostile"))
    yield plane
    plane.stop()


@pytest.fixture
def bystander(plane):
    bystander = Bystander(plane)
    yield bystander
    bystander.stop()
