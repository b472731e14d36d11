"""Bounded staleness: no worker runs ahead too far, and none waits forever."""

import threading
import time

import pytest

LEASE_SECS = 60.0


class Runner:
    """A worker that steps in a thread, as fast as it may."""

    def __init__(self, worker, steps):
        self.done = 0
        self._worker = worker
        self._thread = threading.Thread(target=self._run, args=(steps,))
        self._thread.start()

    def _run(self, steps):
        for _ in range(steps):
            self._worker.step(feed_dict={self._worker.ops["x"]: [0.0] * 8})
            self.done += 1

    def await_done(self, steps):
        """Waits until so many steps are done, and checks that no further one is made."""
        deadline = time.monotonic() + 20
        while self.done < steps and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.15)
        return self.done

    def join(self):
        self._thread.join(20)
        return not self._thread.is_alive()


@pytest.fixture
def open_bounded(open_worker, new_cluster, linear):
    """Opens a worker of one cluster that may be two steps ahead."""

    def opened(index, *, lease_secs=LEASE_SECS, **hook_options):
        return open_worker(
            linear(size=8),
            index,
            initialize=index == 0,
            on=new_cluster,
            max_staleness=2,
            hook_options={"lease_secs": lease_secs, **hook_options},
        )

    return opened


def step(worker):
    worker.step(feed_dict={worker.ops["x"]: [0.0] * 8})


def test_a_fast_worker_waits_for_a_slow_one(open_bounded):
    with open_bounded(0) as slow, open_bounded(1) as fast:
        runner = Runner(fast, 6)
        # It begins a step while it is at most two ahead.
        assert runner.await_done(3) == 3
        step(slow)
        assert runner.await_done(4) == 4
        step(slow)
        step(slow)
        assert runner.join()
        assert runner.done == 6
        assert int(slow.value("global_step")) == 9


def test_a_worker_that_ends_frees_the_others(open_bounded):
    with open_bounded(0) as fast:
        with open_bounded(1) as slow:
            runner = Runner(fast, 10)
            assert runner.await_done(3) == 3
            step(slow)
            assert runner.await_done(4) == 4
        assert runner.join()
        assert runner.done == 10


def test_a_worker_that_dies_frees_the_others_after_its_lease(open_bounded):
    with open_bounded(0, lease_secs=0.5) as fast, open_bounded(1) as dead:
        step(dead)
        runner = Runner(fast, 12)
        assert runner.join()
        assert runner.done == 12
        # It lives after all, and returns as the slowest of the present workers, not with its old
        # count.
        step(dead)
        step(dead)
        assert Runner(fast, 4).join()


def test_a_worker_that_joins_begins_where_the_slowest_is(open_bounded):
    with open_bounded(0) as one:
        for _ in range(5):
            step(one)
        with open_bounded(1) as late:
            assert Runner(one, 3).join()
            runner = Runner(late, 7)
            assert runner.await_done(6) == 6
            step(one)
            assert runner.join()


def test_a_worker_that_is_told_to_stop_does_not_wait(open_bounded):
    told = threading.Event()
    with open_bounded(0), open_bounded(1, cancelled=told.is_set) as fast:
        runner = Runner(fast, 5)
        assert runner.await_done(3) == 3
        told.set()
        assert runner.join()


def test_three_threads_at_their_own_pace_never_break_the_bound(open_bounded):
    with open_bounded(0) as one, open_bounded(1) as two, open_bounded(2) as three:
        runners = [Runner(worker, 25) for worker in (one, two, three)]
        widest = 0
        while any(runner.done < 25 for runner in runners):
            done = [runner.done for runner in runners]
            widest = max(widest, max(done) - min(done))
            time.sleep(0.001)
        assert all(runner.join() for runner in runners)
        # A step under way, and one that is done but not counted here yet.
        assert widest <= 4
