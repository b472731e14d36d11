"""The thread that renews a lease, with a client whose answers the test chooses."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import grpc
import pytest

from paramserve.cluster.heartbeat import Heartbeat
from paramserve.errors import JobFailed, WaitTimeout
from paramserve.protos import membership_pb2 as pb
from support.waiting import until


class NoAnswer(grpc.RpcError):
    def details(self):
        return "connection refused"

    def code(self):
        return grpc.StatusCode.UNAVAILABLE


class Lost(grpc.RpcError):
    def details(self):
        return "the lease of ps:0 ran out after 10 s"

    def code(self):
        return grpc.StatusCode.NOT_FOUND


class Call:
    """A stream that the test answers: each report with the next answer; an exception breaks it."""

    def __init__(self, client, reports):
        self._client = client
        self._reports = reports
        self._cancelled = threading.Event()

    def cancel(self):
        self._cancelled.set()

    def __iter__(self):
        for report in self._reports:
            if self._cancelled.is_set():
                raise NoAnswer
            client = self._client
            client.reports.append(report.report)
            client.called.release()
            answer = client.answer
            answer = next(answer) if isinstance(answer, Iterator) else answer
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                yield answer


class Client:
    """Answers what the test says, each time or one after the other; an exception is raised."""

    call_timeout_secs = 10.0

    def __init__(self, answer):
        self.registration = SimpleNamespace(job=pb.JobConfig(heartbeat_secs=0.02))
        self.answer = answer
        self.address = "chief.host:7077"
        self.reports = []
        self.called = threading.Semaphore(0)

    def turn_to(self, address):
        self.address = address

    def note_task(self, task):
        pass

    def task_report(self, report, hears_holds, answered_hold):
        return pb.TaskReport(report=report, hears_holds=hears_holds, answered_hold=answered_hold)

    def attend(self, reports):
        return Call(self, reports)


@pytest.fixture
def start():
    """Starts a heartbeat with a client; stops it when the test is over."""
    running = []

    def start(client, **more):
        heartbeat = Heartbeat(client, **{"max_silence_secs": 60.0, **more})
        running.append(heartbeat)
        heartbeat.start()
        return heartbeat

    yield start
    for heartbeat in running:
        heartbeat.stop()


def await_calls(client, count):
    for _ in range(count):
        assert client.called.acquire(timeout=30)


def test_it_beats_until_it_is_stopped(start):
    client = Client(pb.TaskNews(generation=4))
    heartbeat = start(client)
    await_calls(client, 3)
    assert heartbeat.is_running
    assert heartbeat.latest.generation == 4
    heartbeat.stop()
    assert not heartbeat.is_running
    count = len(client.reports)
    time.sleep(0.1)
    assert len(client.reports) == count
    heartbeat.check()
    assert not heartbeat.stopping.is_set()


def test_each_beat_carries_the_newest_report(start):
    steps = iter(range(1, 1000))
    client = Client(pb.TaskNews())
    start(client, report=lambda: pb.WorkerReport(local_steps=next(steps)))
    await_calls(client, 3)
    assert [report.local_steps for report in client.reports[:3]] == [1, 2, 3]


def test_what_the_chief_said_last_is_known(start):
    client = Client(pb.TaskNews(generation=1))
    heartbeat = start(client)
    await_calls(client, 1)
    client.answer = pb.TaskNews(generation=2, stop=True)
    assert heartbeat.stopping.wait(30)
    assert heartbeat.latest.generation == 2
    heartbeat.check()


def test_a_lost_lease_ends_it_and_resurfaces(start):
    heartbeat = start(Client(Lost()))
    assert heartbeat.stopping.wait(30)
    for _ in range(2):  # At each call, not only at the first.
        with pytest.raises(JobFailed, match="declared this task lost: the lease of ps:0 ran out"):
            heartbeat.check()
    heartbeat.stop()
    assert not heartbeat.is_running


def name_chief(logdir, job_id, address):
    (logdir / "job.json").write_text(json.dumps({"job_id": job_id, "address": address}))


def test_a_chief_that_has_moved_is_found_through_the_log_directory(start, tmp_path):
    client = Client(NoAnswer())
    client.registration.job.logdir, client.registration.job.job_id = str(tmp_path), "mine"
    start(client)
    await_calls(client, 3)
    name_chief(tmp_path, "another job's", "elsewhere:1")
    await_calls(client, 3)
    for damaged in ("{", "[]", '{"job_id": "mine"}'):
        (tmp_path / "job.json").write_text(damaged)
        await_calls(client, 3)
    assert client.address == "chief.host:7077"
    name_chief(tmp_path, "mine", "other.host:7077")
    await_calls(client, 3)
    assert client.address == "other.host:7077"


def test_a_short_silence_is_borne(start, caplog):
    client = Client(NoAnswer())
    heartbeat = start(client)
    await_calls(client, 3)
    assert "no answer from the chief" in caplog.text
    client.answer = pb.TaskNews(generation=9)
    until(lambda: heartbeat.latest.generation == 9)
    heartbeat.check()
    assert not heartbeat.stopping.is_set()


def test_a_long_silence_ends_it_and_names_the_chief(start):
    began = time.monotonic()
    heartbeat = start(Client(NoAnswer()), max_silence_secs=0.3)
    assert heartbeat.stopping.wait(30)
    assert time.monotonic() - began >= 0.3
    with pytest.raises(WaitTimeout, match=r"chief\.host:7077 has not answered .*limit 0\.3 s"):
        heartbeat.check()


def test_the_limit_counts_from_the_last_answer(start):
    limit_secs = 1.0
    client = Client(itertools.cycle([NoAnswer(), NoAnswer(), pb.TaskNews()]))
    heartbeat = start(client, max_silence_secs=limit_secs)
    began = time.monotonic()
    while time.monotonic() < began + 1.5 * limit_secs:
        await_calls(client, 1)
    heartbeat.check()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_mistake_in_the_report_resurfaces_as_well(start):
    """Otherwise the lease would run out unnoticed while the task trains on."""

    def report():
        raise ValueError("a metric is no number")

    heartbeat = start(Client(pb.TaskNews()), report=report)
    assert heartbeat.stopping.wait(5)
    with pytest.raises(Exception, match="a metric is no number"):
        heartbeat.check()
