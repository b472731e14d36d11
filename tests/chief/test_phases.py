"""The phases of a job: which one may follow which."""

import itertools

import pytest

from paramserve.chief.state import IllegalTransition, Phase

WAYS = {
    "to the end": "waiting initializing training stopping evaluating done",
    "without an evaluation": "waiting initializing training stopping done",
    "stopped before a server came": "waiting done",
    "a server is lost": "training recovering initializing training",
    "a server is lost while the model is restored": "initializing recovering initializing",
    "a server is lost before the first session": "waiting recovering recovering initializing",
    "a server is lost while the model is saved": "stopping recovering initializing",
    "another number of servers": "training scaling initializing training",
    "a move that fails": "training scaling recovering initializing",
    "stopped during a recovery": "training recovering done",
    "stopped during a move": "training scaling done",
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_job_may_go_this_way(way):
    for now, following in itertools.pairwise(map(Phase, way.split())):
        assert now.enter(following) is following


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_may_be_told_twice_and_may_fail(phase):
    assert phase.enter(phase) is phase
    assert phase.enter(Phase.FAILED) is Phase.FAILED


@pytest.mark.parametrize(
    "way",
    [
        "waiting training",
        "training done",
        "training initializing",
        "recovering training",
        "evaluating training",
        "done waiting",
        "failed training",
    ],
)
def test_no_job_goes_that_way(way):
    now, following = map(Phase, way.split())
    with pytest.raises(IllegalTransition, match=f"a job that is {now} cannot become {following}"):
        now.enter(following)


def test_a_job_ends_done_or_failed(make_state):
    state = make_state()
    assert state.phase is Phase.WAITING
    assert [phase for phase in Phase if phase.is_final] == [Phase.DONE, Phase.FAILED]
    with pytest.raises(IllegalTransition):
        state.enter(Phase.TRAINING)
    assert state.phase is Phase.WAITING
