"""Number and times of restarts, with the test's clock."""

import pytest

from paramserve.errors import UsageError
from paramserve.jobs.launch.restarts import MAX_DELAY_SECS, BudgetSpent, RestartBudget


@pytest.fixture
def make(clock):
    """Makes a budget in which nothing is left to chance."""
    return lambda limit, secs=600.0: RestartBudget(limit, secs, clock=clock, chance=lambda: 0.0)


def waited(budget, clock, name, **more):
    """Asks until a restart is due, and returns after how long that was."""
    began = clock.now
    while not budget.is_due(name, **more):
        clock.now += 0.25
    return clock.now - began


def test_the_first_restart_is_at_once_and_the_next_ones_come_later_and_later(make, clock):
    budget = make(100, 1e6)
    delays = [waited(budget, clock, "worker-0") for _ in range(8)]
    assert delays == [0, 1, 2, 4, 8, 16, MAX_DELAY_SECS, MAX_DELAY_SECS]


def test_each_process_has_delays_of_its_own(make, clock):
    budget = make(10)
    assert [waited(budget, clock, "worker-0") for _ in range(3)] == [0, 1, 2]
    assert waited(budget, clock, "worker-1") == 0


def test_asking_again_while_it_waits_takes_nothing(make, clock):
    budget = make(2)
    assert budget.is_due("ps-0")
    for _ in range(10):
        assert not budget.is_due("ps-0")
    clock.now += 1.0
    assert budget.is_due("ps-0")
    with pytest.raises(BudgetSpent):
        budget.is_due("ps-0")


def test_a_part_of_the_delay_is_left_to_chance(clock):
    def delays(chance):
        budget = RestartBudget(10, 600.0, clock=clock, chance=lambda: chance)
        return [waited(budget, clock, "ps-0") for _ in range(4)]

    assert delays(0.0) == [0, 1, 2, 4]
    assert delays(1.0) == [0, 0.75, 1.5, 3]


def test_a_spent_budget_says_who_used_it(make, clock):
    budget = make(3)
    for name in ("worker-0", "ps-1", "worker-0"):
        waited(budget, clock, name)
    with pytest.raises(BudgetSpent) as spent:
        budget.is_due("worker-0")
    assert str(spent.value) == (
        "started again twice within 600 s, besides 1 of ps-1; --max-restarts 3 allows no more"
    )


def test_restarts_of_long_ago_do_not_count(make, clock):
    budget = make(3)
    for _ in range(20):  # Of a job that runs for days.
        assert waited(budget, clock, "worker-0") == 0
        clock.now += 601.0


def test_none_at_all(make):
    with pytest.raises(BudgetSpent, match="--max-restarts 0 allows none"):
        make(0).is_due("worker-0")


def test_a_free_restart_takes_nothing_but_comes_later_and_later_too(make, clock):
    budget = make(1)
    assert [waited(budget, clock, "ps-0", is_free=True) for _ in range(4)] == [0, 1, 2, 4]
    assert waited(budget, clock, "worker-0") == 0
    with pytest.raises(BudgetSpent, match="started again once within"):
        budget.is_due("worker-0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "--max-restarts -1: expected at least 0"),
        ((3, 0.0), "--restart-window-secs 0: expected a positive"),
    ],
)
def test_values_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        RestartBudget(*arguments)
