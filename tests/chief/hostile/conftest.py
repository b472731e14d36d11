"""A control plane in a process of its own, and a task that has to stay in its job meanwhile."""

import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from paramserve.cluster.applicant import Applicant
from paramserve.cluster.chief_client import MembershipClient
from paramserve.cluster.heartbeat import Heartbeat
from paramserve.cluster.spec import Role
from paramserve.cluster.status_client import StatusClient

TESTS = Path(__file__).parents[2]
END_SECS = 30.0


class ControlPlane:
    """The process, and what it needs of the machine."""

    def __init__(self, logdir):
        command = [sys.executable, "-m", "support.control_plane", str(logdir)]
        self._process = psutil.Popen(
            command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = int(self._process.stdout.readline())
        self.address = f"127.0.0.1:{self.port}"

    @property
    def is_running(self):
        return self._process.poll() is None

    def memory_bytes(self):
        return self._process.memory_info().rss

    def descriptors(self):
        return self._process.num_fds()

    def stop(self):
        self._process.stdin.close()
        try:
            self._process.wait(END_SECS)
        except psutil.TimeoutExpired:
            self._process.kill()
            raise


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
