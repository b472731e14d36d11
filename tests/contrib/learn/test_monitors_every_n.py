"""The contract of monitors, and when those act that act now and then."""

from types import SimpleNamespace

import pytest

from paramserve.contrib.learn.monitors import BaseMonitor, EveryN


def test_calls_out_of_order_are_refused():
    monitor = BaseMonitor()
    with pytest.raises(ValueError, match="end called without begin"):
        monitor.end()
    monitor.begin(max_steps=10)
    with pytest.raises(ValueError, match="begin called twice"):
        monitor.begin()
    with pytest.raises(ValueError, match=r"step_begin\(-1\)"):
        monitor.step_begin(-1)
    with pytest.raises(ValueError, match=r"step_begin\(11\): steps of this run are in 0..10"):
        monitor.step_begin(11)
    assert monitor.step_begin(10) == []
    with pytest.raises(ValueError, match=r"step_end\(9\): the step that began is 10"):
        monitor.step_end(9, {})
    assert monitor.step_end(10, {}) is False
    monitor.post_step(10, None)
    monitor.end(session=None)
    monitor.begin()
    monitor.step_begin(11)


def test_epochs_are_checked_too():
    monitor = BaseMonitor()
    with pytest.raises(ValueError, match=r"epoch_begin\(-1\)"):
        monitor.epoch_begin(-1)
    monitor.epoch_begin(2)
    with pytest.raises(ValueError, match="epoch 2 has not ended"):
        monitor.epoch_begin(3)
    with pytest.raises(ValueError, match="the epoch that began is 2"):
        monitor.epoch_end(3)
    monitor.epoch_end(2)
    monitor.epoch_begin(0)


def test_a_monitor_is_the_chiefs_and_has_an_estimator_at_most():
    monitor = BaseMonitor()
    assert not monitor.run_on_all_workers
    with pytest.raises(ValueError, match="estimator"):
        monitor.set_estimator(None)
    monitor.set_estimator(SimpleNamespace())


def test_a_step_that_failed_may_begin_again():
    monitor = BaseMonitor()
    monitor.begin()
    monitor.step_begin(5)
    monitor.post_step(5, None)
    monitor.step_begin(5)
    monitor.step_end(5, {})


class Actor(EveryN):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.begun, self.ended, self.posted = [], [], []

    def every_n_step_begin(self, step):
        self.begun.append(step)
        return ["asked"]

    def every_n_step_end(self, step, outputs):
        self.ended.append(step)
        return outputs["stop"]

    def every_n_post_step(self, step, session):
        self.posted.append((step, session))


def run(monitor, steps, max_steps=None, session="session"):
    monitor.begin(max_steps=max_steps)
    for step in steps:
        assert monitor.step_begin(step) in (["asked"], [])
        assert monitor.step_end(step, {"stop": False}) is False
        monitor.post_step(step, session)
    monitor.end(session=session)


@pytest.mark.parametrize(
    ("every", "first", "active"),
    [
        (0, -1, range(30)),
        (1, -1, range(1, 30)),
        (2, -1, [*range(2, 29, 2), 29]),
        (8, 2, [0, 1, 2, 10, 18, 26, 29]),
    ],
)
def test_active_steps_of_thirty(every, first, active):
    actor = Actor(every_n_steps=every, first_n_steps=first)
    run(actor, range(30), max_steps=29)
    assert actor.begun == actor.ended == list(active)
    assert actor.posted == [(step, "session") for step in active]


def test_without_a_known_end_the_last_step_is_made_up_for():
    actor = Actor(every_n_steps=8, first_n_steps=2)
    run(actor, range(30))
    assert actor.ended == [0, 1, 2, 10, 18, 26]
    assert [step for step, _ in actor.posted] == [*actor.ended, 29]


def test_by_default_it_acts_at_step_1_and_every_hundred_after():
    actor = Actor()
    run(actor, range(1, 302))
    assert actor.ended == [1, 101, 201, 301]


def test_it_counts_anew_each_time_that_it_begins():
    actor = Actor(every_n_steps=4)
    for _ in range(2):
        run(actor, range(1, 7))
    assert actor.ended == [1, 5, 1, 5]


def test_an_active_step_that_failed_is_active_again():
    actor = Actor(every_n_steps=8)
    actor.begin()
    for _ in range(2):
        assert actor.step_begin(8) == ["asked"]
        actor.post_step(8, "session")
    assert actor.posted == []
    actor.step_begin(8)
    actor.step_end(8, {"stop": False})
    actor.post_step(8, "session")
    assert actor.posted == [(8, "session")]
    assert actor.step_begin(9) == []


def test_nothing_is_made_up_for_if_there_was_no_step():
    actor = Actor(every_n_steps=8)
    run(actor, [])
    assert actor.posted == []


def test_it_can_stop_training():
    actor = Actor(every_n_steps=2, first_n_steps=-1)
    actor.begin()
    assert [actor.step_begin(step) and actor.step_end(step, {"stop": True}) for step in (2,)]
