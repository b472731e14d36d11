"""Draining of parameter servers: the time of each release, and the order of its parts."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from paramserve.chief.draining import Draining
from paramserve.chief.membership.tasks import TaskState
from paramserve.chief.state import JobState
from paramserve.cluster.spec import Role, Task
from paramserve.errors import JobFailed
from support.membership import ask_ready, register

PS, WORKER = Role.PS, Role.WORKER


@pytest.fixture
def state(make_state) -> JobState:
    """Two parameter servers, "a" and "b", that hold a model, and a worker that trains on them."""
    state = make_state(num_ps=2)
    for role, life in ((PS, "a"), (PS, "b"), (WORKER, "w")):
        join(state, role, life)
    state.membership.mark_ready(1)
    ask_ready(state.membership, 1, task=Task(WORKER, 0))
    return state


def join(state, role, life, **more):
    register(state.membership, role, address=f"{life}.host:2222", incarnation=life, **more)


def give_notice(state, index, secs=600.0):
    state.notices.give(Task(PS, index), "ab"[index], secs)


class Story:
    """The calls to the parts of a chief, in order, with the members of the job at each."""

    def __init__(self, state):
        self._state = state
        self.told = []
        self.fails = False

    def tell(self, what):
        self.told.append((what, len(self._state.membership.up(PS))))

    def parts(self, *, mirrored=False, held=True, survives=True):
        checkpoints = SimpleNamespace(
            stop=lambda max_wait_secs: self.tell("no more checkpoints"), save=self._save
        )
        mirrors = SimpleNamespace(
            stop=lambda: self.tell("no more mirrors"),
            would_survive=lambda lost: survives,
            take=self._take,
        )
        paused = self._paused if held else None
        return checkpoints, mirrors if mirrored else None, paused

    def _save(self, *, quiet, max_wait_secs):
        assert quiet
        assert max_wait_secs > 0
        self.tell("save")
        if self.fails:
            raise JobFailed("the disk is full")

    def _take(self):
        self.tell("mirror")
        return SimpleNamespace(global_step=7)

    @contextmanager
    def _paused(self, secs):
        self.tell("hold")
        yield True
        self.tell("go on")


@pytest.fixture
def story(state):
    return Story(state)


@pytest.fixture
def make(state, story):
    return lambda awaits=False, **parts: Draining(state, *story.parts(**parts), awaits)


def test_a_server_that_stays_is_not_drained(state, make):
    assert not make().is_due()
    give_notice(state, 1)
    assert make().is_due()


def test_a_replacement_that_is_on_its_way_is_waited_for(state, make):
    draining = make(awaits=True)
    give_notice(state, 1)
    assert not draining.is_due()
    join(state, PS, "s", spare=True)
    assert draining.is_due()
    give_notice(state, 0)
    assert not draining.is_due(), "one for each"


def test_a_replacement_that_does_not_come_is_not_waited_for(state, make):
    draining = make(awaits=True)
    give_notice(state, 1, secs=0.0)
    assert draining.is_due()


def test_the_model_is_saved_while_nothing_moves_and_then_they_go(state, story, make):
    give_notice(state, 0)
    give_notice(state, 1)
    said = make().drain(lambda: story.tell("look"))
    assert said == "ps:0, ps:1 left on notice"
    assert story.told == [
        ("no more checkpoints", 2),
        ("hold", 2),
        ("look", 2),
        ("save", 2),
        ("go on", 0),
    ]
    assert [r.state for r in state.membership.records(PS)] == [TaskState.PREEMPTED] * 2
    assert state.notices.pending() == []


def test_mirrors_serve_where_there_are_any(state, story, make):
    give_notice(state, 1)
    make(mirrored=True).drain(lambda: None)
    what = [what for what, _ in story.told]
    assert what == ["no more mirrors", "no more checkpoints", "hold", "mirror", "go on"]


def test_mirrors_that_go_along_do_not_serve(state, story, make):
    give_notice(state, 0)
    give_notice(state, 1)
    make(mirrored=True, survives=False).drain(lambda: None)
    assert ("save", 2) in story.told


def test_workers_that_cannot_be_held_lose_their_sessions_first(state, make):
    """They make no step between the save and the end of the generation."""
    give_notice(state, 1, secs=1.0)
    over = []
    make(held=False).drain(lambda: over.append(state.membership.over))
    assert over == [1]


def test_who_cannot_be_saved_goes_all_the_same(state, story, make, caplog):
    story.fails = True
    give_notice(state, 1)
    make().drain(lambda: None)
    assert len(state.membership.up(PS)) == 1
    assert "the disk is full" in caplog.text
