"""A call that many ask for is made once in a while, and not forgotten."""

import threading

import pytest

from paramserve.chief.paced_call import PacedCall
from support.waiting import until


@pytest.fixture
def paced():
    calls = []
    made = []

    def make(pace_secs):
        made.append(PacedCall(lambda: calls.append(threading.current_thread().name), pace_secs))
        made[-1].start()
        return made[-1], calls

    yield make
    for each in made:
        each.stop()
        assert not each.is_running


def test_the_first_call_comes_at_once_and_many_requests_make_few_calls(paced):
    call, calls = paced(1000.0)
    call.request()
    until(lambda: len(calls) == 1)
    for _ in range(100):
        call.request()
    assert len(calls) == 1
    assert calls[0] != threading.current_thread().name


def test_what_was_asked_for_is_done_at_the_end(paced):
    call, calls = paced(1000.0)
    call.request()
    until(lambda: len(calls) == 1)
    call.request()
    call.stop()
    assert len(calls) == 2


def test_what_is_asked_for_after_a_call_is_done_later(paced):
    call, calls = paced(0.05)
    for count in (1, 2, 3):
        call.request()
        until(lambda count=count: len(calls) >= count)
