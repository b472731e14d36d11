"""Coroutines that wait for what other threads change, and the loop that they run in."""

import asyncio
import contextlib
import threading
import time
from concurrent.futures import CancelledError

import pytest

from paramserve.chief.changes import Changes
from paramserve.chief.services.event_loop import EventLoop
from paramserve.chief.services.wakeups import Wakeups


@pytest.fixture
def loop():
    lags = []
    loop = EventLoop("test", lags.append)
    loop.lags = lags
    yield loop
    loop.stop()
    assert not loop.is_running


class Box:
    """Some bookkeeping: a value behind a lock."""

    def __init__(self, key=None):
        self.changed = Changes()
        self.value = None
        self.looks = 0
        self.wakeups = Wakeups(self.changed, key)

    def put(self, value):
        with self.changed:
            self.value = value
            self.changed.notify_all()

    def look(self):
        self.looks += 1
        return self.value

    def wait(self, timeout_secs=60.0):
        return self.wakeups.wait_for(self.look, timeout_secs)


def test_a_thousand_waiters_hear_of_a_change_and_take_no_thread(loop):
    box = Box()

    async def wait():
        return await asyncio.gather(*(box.wait() for _ in range(1000)))

    threads = threading.active_count()
    results = []
    waiter = threading.Thread(target=lambda: results.append(loop.call(wait())))
    waiter.start()
    while box.looks < 1000:
        time.sleep(0.01)
    assert threading.active_count() <= threads + 1
    box.put("news")
    waiter.join(30)
    assert results == [["news"] * 1000]


def test_a_wait_is_bounded(loop):
    box = Box()
    assert loop.call(box.wait(0.0)) is None
    assert loop.call(box.wait(0.05)) is None


def test_what_does_not_change_the_key_wakes_nobody(loop):
    key = [0]
    box = Box(lambda: key[0])
    results = []
    waiter = threading.Thread(target=lambda: results.append(loop.call(box.wait())))
    waiter.start()
    while not box.looks:
        time.sleep(0.01)
    box.put(None)  # The first change shows the key.
    loop.call(asyncio.sleep(0))
    looks = box.looks
    for _ in range(10):
        box.put("unimportant")
        loop.call(asyncio.sleep(0))
    assert box.looks == looks
    key[0] = 1
    box.put("important")
    waiter.join(30)
    assert results == ["important"]


def test_a_loop_that_is_kept_busy_says_by_how_much_it_is_late(loop):
    async def block():
        time.sleep(0.8)

    loop.call(block())
    loop.call(asyncio.sleep(0.3))
    assert max(loop.lags) > 0.3


def test_what_waits_is_cancelled_with_the_loop(loop):
    box = Box()
    ended = []

    async def wait():
        try:
            await box.wait()
        finally:
            ended.append(True)

    def call():
        with contextlib.suppress(CancelledError):
            loop.call(wait())

    threading.Thread(target=call, daemon=True).start()
    while not box.looks:
        time.sleep(0.01)
    loop.stop()
    assert ended == [True]
    box.put("too late")
