"""Who gets how many tokens, and when a job has waited long enough."""

import pytest

from paramserve.data_plane.sync.stall_clock import StallClock
from paramserve.data_plane.sync.tokens import deal


@pytest.mark.parametrize(
    ("present", "shares"),
    [
        pytest.param({0, 1, 2}, [1, 1, 1, 0], id="all"),
        pytest.param(set(), [1, 1, 1, 0], id="none-yet"),
        pytest.param({0, 2}, [2, 0, 1, 0], id="one-is-gone"),
        pytest.param({1}, [0, 3, 0, 0], id="one-is-left"),
        pytest.param({0, 1, 3}, [1, 1, 0, 1], id="another-in-its-place"),
        pytest.param({0, 1, 2, 3, 7}, [1, 1, 1, 2], id="more-than-planned"),
        pytest.param({5}, [0, 0, 0, 3], id="only-another"),
    ],
)
def test_tokens_are_dealt_to_those_who_are_there(present, shares):
    assert deal(present, queues=4, tokens=3) == shares


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_job_stalls_when_a_step_takes_longer_than_the_lease():
    clock = Clock()
    stalls = StallClock(10, clock)
    seen = []
    for clock.now, step in [(0, 0), (9, 0), (11, 0), (12, 1), (20, 1), (23, 1)]:
        seen.append(stalls.is_stalled(step))
    assert seen == [False, False, True, False, False, True]


def test_where_steps_take_long_a_stall_is_longer():
    clock = Clock()
    stalls = StallClock(10, clock)
    for clock.now, step in [(0, 0), (20, 1), (40, 2), (60, 3)]:
        stalls.is_stalled(step)
    clock.now = 110
    assert not stalls.is_stalled(3)
    clock.now = 121
    assert stalls.is_stalled(3)
    stalls.restart()
    clock.now = 175
    assert not stalls.is_stalled(3)
