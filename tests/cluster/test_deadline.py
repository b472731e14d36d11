"""Deadlines, pauses, and calls one can stop waiting for."""

import itertools
import threading

import pytest
import tensorflow as tf

from paramserve.cluster.deadline import Deadline, call_in_background, growing_pauses, has_ended


def test_a_deadline_runs_out():
    now = 100.0
    deadline = Deadline.after(5, clock=lambda: now)
    assert deadline.remaining_secs() == 5.0
    now = 104.0
    assert deadline.remaining_secs() == 1.0
    now = 200.0
    assert deadline.remaining_secs() == 0.0
    deadline.sleep(3600)


def test_without_a_limit_it_never_does():
    assert Deadline.after(None).remaining_secs() == float("inf")


def test_its_error_says_how_long_the_wait_was_and_for_what():
    error = Deadline.after(0.5).error("ps:1 is silent.")
    assert isinstance(error, tf.errors.DeadlineExceededError)
    assert error.message == "Session was not ready after waiting 0.5 secs. ps:1 is silent."


def test_pauses_grow_up_to_a_second():
    pauses = list(itertools.islice(growing_pauses(0.1), 20))
    assert pauses[0] == 0.1
    assert pauses == sorted(pauses)
    assert pauses[-1] == 1.0
    assert set(itertools.islice(growing_pauses(3.0), 5)) == {3.0}


def test_a_call_in_the_background_gives_its_result_or_error():
    call = call_in_background("adder", lambda: 1 + 1)
    assert has_ended(call, float("inf"))
    assert call.result() == 2
    failing = call_in_background("divider", lambda: 1 // 0)
    assert has_ended(failing, 60)
    with pytest.raises(ZeroDivisionError):
        failing.result()


def test_one_can_stop_waiting_for_it():
    release = threading.Event()
    call = call_in_background("waiter", release.wait)
    assert not has_ended(call, 0.01)
    release.set()
    assert has_ended(call, 60)
