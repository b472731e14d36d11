"""The times of restore points: a failure costs no more steps than configured."""

import pytest

from paramserve.chief.checkpoints.mirrors import Pace


def pace_of(every_secs, *took):
    pace = Pace(every_secs)
    for secs in took:
        pace.note(secs)
    return pace


def worst_loss_secs(pace, took):
    """The age of the newest point just before the next one is whole."""
    return took + pace.pause_secs + took


def test_before_anything_is_known_the_pause_is_all_there_is():
    assert pace_of(2.0).pause_secs == pytest.approx(1.8)


@pytest.mark.parametrize("took", [0.01, 0.3, 0.65])
def test_a_loss_costs_what_was_asked_for(took):
    assert 1.5 < worst_loss_secs(pace_of(2.0, took), took) < 2.0


def test_the_slowest_of_the_last_ones_counts():
    pace = pace_of(2.0, 0.1, 0.6, 0.2)
    assert 1.5 < worst_loss_secs(pace, 0.6) < 2.0


def test_one_that_was_slow_long_ago_is_forgotten():
    assert pace_of(2.0, 0.9, *[0.1] * 8).pause_secs == pytest.approx(1.6)


def test_where_copies_take_long_training_gets_a_pause_all_the_same():
    assert pace_of(2.0, 30.0).pause_secs == 0.5
