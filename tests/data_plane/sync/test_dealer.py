"""The distribution of tokens, and the end of a job's wait for workers."""

import subprocess
import sys

import pytest

from paramserve.data_plane.sync.dealer import Look, StallClock, TokenDealer, TokenPlan
from paramserve.data_plane.sync.ledger_watch import LEFT, LedgerWatch
from support.clock import Clock


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
    assert TokenPlan(3, 3, has_own_queues=True).deal(present) == shares


def test_a_job_stalls_when_a_step_takes_longer_than_the_lease():
    clock = Clock(0.0)
    stalls = StallClock(10, clock)
    seen = []
    for clock.now, step in [(0, 0), (9, 0), (11, 0), (12, 1), (20, 1), (23, 1)]:
        seen.append(stalls.is_stalled(step))
    assert seen == [False, False, True, False, False, True]


def test_where_steps_take_long_a_stall_is_longer():
    clock = Clock(0.0)
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


def look(step=0, waiting=0, sizes=(0, 0, 0), given=(), replicas=2):
    return Look(step, waiting, replicas, sizes, frozenset(given))


def make_dealer(**more):
    plan = TokenPlan(**{"replicas": 2, "workers": 2, "has_own_queues": True, **more})
    dealer = TokenDealer(plan, 10.0)
    dealer.begin(dict.fromkeys(range(2), "a"))
    return dealer


def test_it_needs_no_tensorflow():
    names = "paramserve.data_plane.sync.dealer", "paramserve.data_plane.sync.ledger_watch"
    code = f"import sys, {', '.join(names)}; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_token_of_a_worker_that_left_goes_to_those_who_get_its_tokens():
    dealer = make_dealer()
    assert dealer.set_workers({0: "a", 1: "a"}) == [0, 0, 0], "all are as they were"
    assert dealer.set_workers({1: "a"}) == [0, 1, 0]
    assert dealer.shares == [0, 2, 0]
    assert dealer.set_workers({0: "b", 1: "a"}) == [1, 0, 0], "its first token"


def test_another_life_of_a_worker_gets_a_token_in_its_own_queue():
    dealer = make_dealer()
    assert dealer.set_workers({0: "b", 1: "a"}) == [1, 0, 0]
    assert dealer.shares == [1, 1, 0]


def test_who_was_only_expected_has_no_token_to_lose():
    dealer = make_dealer(has_own_queues=False)
    dealer.begin({0: "a", 1: ""})
    assert dealer.set_workers({0: "a", 1: "b"}) == [0]
    assert dealer.set_workers({0: "a"}) == [1]


@pytest.mark.parametrize(
    ("seen", "counts"),
    [
        pytest.param(look(waiting=1, given={0}), [0, 1, 0], id="the-late-one"),
        pytest.param(look(waiting=1, given={0}, sizes=(0, 1, 0)), [0, 0, 0], id="has-one-to-take"),
        pytest.param(look(), [1, 1, 0], id="both"),
        pytest.param(look(waiting=1, given={0, 1}), [1, 0, 0], id="a-deputy-lost-its-token"),
    ],
)
def test_a_stall_ends_with_tokens_for_those_who_have_none_and_gave_nothing(seen, counts):
    assert make_dealer().for_the_late(seen) == counts


def test_in_one_queue_a_stall_ends_with_as_many_tokens_as_gradients_are_missing():
    dealer = make_dealer(replicas=3, has_own_queues=False)
    assert dealer.for_the_late(look(waiting=1, sizes=(0,), replicas=3)) == [2]
    assert dealer.for_the_late(look(waiting=1, sizes=(2,), replicas=3)) == [0]


def test_a_step_that_follows_its_workers_gets_what_it_lacks_when_two_looks_agree():
    dealer = make_dealer(follows_workers=True)
    assert not dealer.lacks_tokens(5)
    assert dealer.set_workers({1: "a"}, rounds=5) == [0, 0, 0], "it is not clear yet"
    seen = look(waiting=1, given={1})
    assert dealer.lacks_tokens(5)
    assert dealer.refill(seen) == [0, 0, 0]
    assert dealer.refill(look(waiting=1, given={1}, sizes=(0, 1, 0))) == [0, 0, 0], "it moved"
    assert dealer.refill(seen) == [0, 0, 0]
    assert dealer.refill(seen) == [0, 1, 0]
    assert not dealer.lacks_tokens(5)


def test_a_step_that_has_begun_since_has_tokens_for_all():
    dealer = make_dealer(follows_workers=True)
    dealer.set_workers({1: "a"}, rounds=5)
    assert not dealer.lacks_tokens(6)


def make_watch(clock, *, has_own_queues, chief=0):
    return LedgerWatch(TokenDealer(TokenPlan(3, 3, has_own_queues), 10.0, clock=clock), chief)


def test_in_one_queue_each_worker_that_says_it_left_is_worth_a_token():
    watch = make_watch(Clock(0.0), has_own_queues=False, chief=2)
    seen = look(sizes=(0,), replicas=3)
    assert watch.judge(seen, {0: (1, 0), 1: (1, LEFT)}) == [0], "it left before the first look"
    assert watch.judge(seen, {0: (1, LEFT), 1: (1, LEFT)}) == [1]
    assert watch.judge(seen, {0: (1, LEFT), 1: (2, 1)}) == [0]
    assert watch.judge(seen, {0: (1, LEFT), 1: (2, LEFT)}) == [1]


def test_in_one_queue_a_stall_ends_only_where_no_token_is_left():
    clock = Clock(0.0)
    watch, pushed = make_watch(clock, has_own_queues=False), {0: (1, 0)}
    counts = []
    for clock.now, size in [(0, 0), (9, 0), (11, 1), (20, 0), (22, 0)]:
        counts += watch.judge(look(waiting=1, sizes=(size,), replicas=3), pushed)
    assert counts == [0, 0, 0, 0, 2]


def test_tokens_of_a_worker_that_left_go_to_the_others_until_it_pushes():
    watch, seen = make_watch(Clock(0.0), has_own_queues=True), look(sizes=(0, 0, 0, 0))
    assert watch.judge(seen, {1: (4, LEFT), 2: (4, 3)}) == [1, 0, 0, 0]
    assert watch._dealer.shares == [2, 0, 1, 0]
    assert watch.judge(seen, {1: (4, LEFT), 2: (4, 3)}) == [0, 0, 0, 0]
    assert watch.judge(seen, {1: (5, 4), 2: (4, 3)}) == [0, 1, 0, 0]
    assert watch._dealer.shares == [1, 1, 1, 0]


def test_silent_workers_are_given_up_at_a_stall_but_never_the_chief():
    clock = Clock(0.0)
    watch = make_watch(clock, has_own_queues=True)
    seen, pushed = (
        look(7, 1, (0, 0, 0, 0), given={2}, replicas=3),
        {0: (3, 6), 1: (3, 6), 2: (4, 7)},
    )
    watch.judge(seen, pushed)
    clock.now = 11
    assert watch.judge(seen, pushed) == [1, 0, 0, 0]
    assert watch._dealer.shares == [2, 0, 1, 0]
    clock.now = 22
    assert watch.judge(seen, pushed) == [2, 0, 0, 0], "the chief lost its tokens with a session"
