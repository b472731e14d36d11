"""A call that many ask for is made once in a while, and not forgotten."""

import asyncio
import threading

import pytest

from paramserve.chief.paced_call import PacedCall
from support.waiting import until


@pytest.fixture
def paced():
    calls = []
    made = []

    def make(pause_secs):
        def call():
            calls.append(threading.current_thread().name)

        # However short the call, the pause is the longest one.
        made.append(PacedCall(call, pause_ratio=1e12, longest_pause_secs=pause_secs))
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


def test_one_call_is_made_for_all_that_asked_during_another():
    calls, may_go_on = [], threading.Event()

    def call():
        calls.append(None)
        assert may_go_on.wait(60.0)

    paced = PacedCall(call)
    paced.start()
    try:
        first = paced.request()
        until(lambda: calls)
        later = [paced.request() for _ in range(100)]
        assert not first.done()
        may_go_on.set()
        for each in (first, *later):
            each.result(60.0)
        assert len(calls) == 2
    finally:
        may_go_on.set()
        paced.stop()


def test_a_call_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("paramserve.chief.paced_call._PATIENCE_SECS", 0.01)
    may_go_on = threading.Event()
    paced = PacedCall(lambda: may_go_on.wait(60.0))
    paced.start()
    try:
        asyncio.run(asyncio.wait_for(paced.make(), 60.0))
        assert not may_go_on.is_set()
    finally:
        may_go_on.set()
        paced.stop()
