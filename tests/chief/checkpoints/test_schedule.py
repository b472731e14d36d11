"""The schedule of checkpoints: by steps, by time, and after failures."""

import pytest

from paramserve.chief.checkpoints.checkpoints import MAX_RETRY_SECS, SaveSchedule


class Training:
    """A training that stands at a step, at a time."""

    def __init__(self):
        self.step, self.now = 0, 100.0

    def schedule(self, **options):
        return SaveSchedule(lambda: self.step, clock=lambda: self.now, **options)


@pytest.fixture
def training():
    return Training()


def test_without_an_interval_nothing_is_due(training):
    schedule = training.schedule()
    training.step, training.now = 10_000, 1e6
    assert not schedule.is_due
    schedule.note_failure()
    training.now += MAX_RETRY_SECS
    assert not schedule.is_due


def test_steps_are_counted_from_the_newest_checkpoint(training):
    schedule = training.schedule(every_steps=10)
    training.step = 9
    assert not schedule.is_due
    training.step = 12
    assert schedule.is_due
    schedule.note_saved(12)
    training.step = 21
    assert not schedule.is_due
    training.step = 22
    assert schedule.is_due


def test_time_counts_only_if_a_step_was_made(training):
    schedule = training.schedule(every_secs=60.0)
    training.now += 61.0
    assert not schedule.is_due
    training.step = 1
    assert schedule.is_due
    schedule.note_saved(1)
    training.step, training.now = 2, training.now + 59.0
    assert not schedule.is_due


def test_the_next_try_comes_later_after_each_failure(training):
    schedule = training.schedule(every_steps=1, retry_secs=5.0)
    training.step = 1
    waits = []
    for _ in range(8):
        schedule.note_failure()
        waits.append(schedule.retry_in_secs)
        assert not schedule.is_due
        training.now += waits[-1]
        assert schedule.is_due
    assert waits == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, MAX_RETRY_SECS, MAX_RETRY_SECS]
    schedule.note_saved(1)
    schedule.note_failure()
    assert schedule.retry_in_secs == 5.0
