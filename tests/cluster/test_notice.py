"""A parameter server whose process is asked to end, with a chief whose answers the test chooses."""

import threading
from types import SimpleNamespace

import grpc
import pytest

from paramserve.cluster.notice import leave_on_notice
from paramserve.cluster.spec import Role, Task
from paramserve.protos import membership_pb2 as pb


class NoAnswer(grpc.RpcError):
    def details(self):
        return "connection refused"


class Client:
    """A client with the test's answers, one after the other; the last one repeats forever."""

    registration = SimpleNamespace(task=Task(Role.PS, 0))

    def __init__(self, *answers):
        self._answers = list(answers)
        self.asked = []
        self.left = []

    def give_notice(self, grace_secs, timeout_secs):
        self.asked.append((grace_secs, timeout_secs))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def leave(self, reason, max_wait_secs):
        self.left.append(reason)


@pytest.fixture
def heartbeat():
    return SimpleNamespace(stopping=threading.Event(), may_go=threading.Event())


def test_it_stays_until_the_chief_lets_it_go(heartbeat):
    client = Client(False, NoAnswer(), False, True)
    assert leave_on_notice(client, heartbeat, 30.0)
    assert len(client.asked) == 4
    assert all(timeout <= grace <= 30.0 for grace, timeout in client.asked)
    assert client.left == [], "a released server has left"


def test_what_it_hears_ends_the_wait_without_another_call(heartbeat):
    client = Client(False)
    threading.Timer(0.1, heartbeat.may_go.set).start()
    assert leave_on_notice(client, heartbeat, 30.0)
    assert len(client.asked) == 1


def test_a_chief_that_ends_the_job_has_the_last_word(heartbeat):
    heartbeat.stopping.set()
    client = Client(False)
    assert not leave_on_notice(client, heartbeat, 30.0)
    assert client.left == []


def test_who_was_let_go_is_not_heartbeat_as_well(heartbeat):
    """Its heartbeat finds that it is not in the job any more, before the answer arrives."""
    client = Client(True)
    heartbeat.stopping.set()
    assert leave_on_notice(client, heartbeat, 30.0)


@pytest.mark.parametrize("answer", [False, NoAnswer()])
def test_a_chief_that_says_nothing_is_not_waited_for(heartbeat, answer):
    client = Client(answer)
    assert leave_on_notice(client, heartbeat, 0.3)
    assert client.left == [pb.LeaveRequest.PREEMPTED]
