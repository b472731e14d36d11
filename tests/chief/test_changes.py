"""Looks of a thread at bookkeeping: soon after a change, and seldom when each costs much."""

import threading
import time

from paramserve.chief.changes import Changes, Looks
from support.waiting import PATIENCE_SECS


def notify(changes):
    with changes:
        changes.notify_all()


def work(secs):
    """Uses the processor."""
    began = time.thread_time()
    while time.thread_time() - began < secs:
        pass


def test_a_look_follows_a_change():
    changes = Changes()
    looks = Looks(changes)
    timer = threading.Timer(0.1, notify, [changes])
    timer.start()
    began = time.monotonic()
    looks.wait(PATIENCE_SECS)
    assert time.monotonic() - began < PATIENCE_SECS / 2
    timer.join()


def test_a_look_that_works_hard_waits_for_longer():
    """It pauses for four times as long as it has worked, changes or not."""
    changes = Changes()
    looks = Looks(changes)
    work(0.05)
    timer = threading.Timer(0.01, notify, [changes])
    timer.start()
    began = time.monotonic()
    looks.wait(PATIENCE_SECS)
    assert time.monotonic() - began >= 0.2
    timer.join()
