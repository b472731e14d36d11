"""Workers that wait for a token that was never issued, and workers that only wait."""

from paramserve.chief.stalls.lost_tokens import LostTokens, NewSession


def session(number, heard, life="a"):
    return NewSession(life, number, heard)


def test_who_says_twice_that_it_waits_at_an_empty_queue_has_none_to_come():
    tokens = LostTokens()
    first, later = {1: session(2, heard=10.0)}, {1: session(2, heard=11.0)}
    assert tokens.is_any_new(first)
    assert tokens.find(first, {1}) == []
    assert not tokens.is_any_new(first), "nothing was heard since"
    assert tokens.is_any_new(later)
    assert tokens.find(later, {1}) == [1]


def test_a_session_is_supplied_once():
    tokens = LostTokens()
    for heard in (10.0, 11.0):
        tokens.find({1: session(2, heard)}, {1})
    assert not tokens.is_any_new({1: session(2, 12.0)})
    assert tokens.find({1: session(2, 12.0)}, {1}) == []
    assert tokens.find({1: session(3, 13.0)}, {1}) == []
    assert tokens.find({1: session(3, 14.0)}, {1}) == [1]


def test_who_has_taken_a_token_between_two_looks_needs_none():
    tokens = LostTokens()
    tokens.find({1: session(2, 10.0)}, {1})
    assert not tokens.is_any_new({}), "it does not wait any more"
    assert tokens.find({1: session(3, 20.0)}, {1}) == [], "another session is again asked twice"


def test_whose_queue_has_a_token_takes_that():
    tokens = LostTokens()
    assert tokens.find({1: session(2, 10.0)}, set()) == []
    assert tokens.find({1: session(2, 11.0)}, {1}) == []
    assert tokens.find({1: session(2, 12.0)}, {1}) == [1]
