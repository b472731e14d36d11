"""The time limit of a step in a worker that is asked to end."""

import threading

import pytest

from paramserve.worker.preemption import NoticeWatch


@pytest.fixture
def stop():
    return threading.Event()


@pytest.fixture
def start(stop):
    """Starts a watch; `given_up` says whether it gave a step up."""
    watches = []

    def start(grace_secs):
        given_up = threading.Event()
        watch = NoticeWatch(stop, grace_secs, given_up.set)
        watches.append(watch)
        watch.start()
        return watch, given_up

    yield start
    stop.set()
    for watch in watches:
        watch.stop()


def test_a_step_that_takes_too_long_is_given_up(start, stop):
    watch, given_up = start(0.2)
    assert not given_up.wait(0.5), "no end was requested"
    assert watch.remaining_secs() == 0.2
    stop.set()
    assert given_up.wait(30)
    assert watch.remaining_secs() < 0.2


def test_a_step_that_ends_in_time_is_not(start, stop):
    watch, given_up = start(1.0)
    stop.set()
    watch.stop()
    assert not given_up.wait(1.5)
    assert not watch.is_running


def test_it_ends_with_the_steps(start):
    watch, _ = start(30.0)
    assert watch.is_running
    watch.stop()
    watch._thread.join(30)
    assert not watch.is_running
