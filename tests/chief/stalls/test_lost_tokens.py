"""Workers that wait for a token that was never issued, and workers that only wait."""

from paramserve.chief.stalls.lost_tokens import LostTokens, NewSession


def session(number, heard, life="a"):
    return NewSession(life, number, heard)


class Queues:
    """Queues that are asked which of them are empty."""

    def __init__(self, *empty):
        self.empty, self.looks = set(empty), 0

    def __call__(self):
        self.looks += 1
        return self.empty


def test_who_says_twice_that_it_waits_at_an_empty_queue_has_none_to_come():
    tokens, queues = LostTokens(), Queues(1)
    first, later = {1: session(2, heard=10.0)}, {1: session(2, heard=11.0)}
    assert tokens.find(first, queues) == []
    assert queues.looks == 1
    assert tokens.find(first, queues) == []
    assert queues.looks == 1, "nothing was heard since"
    assert tokens.find(later, queues) == [1]


def test_a_session_is_supplied_once():
    tokens, queues = LostTokens(), Queues(1)
    assert [tokens.find({1: session(2, heard)}, queues) for heard in (10.0, 11.0)] == [[], [1]]
    assert tokens.find({1: session(2, 12.0)}, queues) == []
    assert queues.looks == 2
    assert tokens.find({1: session(3, 13.0)}, queues) == []
    assert tokens.find({1: session(3, 14.0)}, queues) == [1]


def test_who_has_taken_a_token_between_two_looks_needs_none():
    tokens, queues = LostTokens(), Queues(1)
    tokens.find({1: session(2, 10.0)}, queues)
    assert tokens.find({}, queues) == [], "it does not wait any more"
    assert queues.looks == 1
    assert tokens.find({1: session(2, 20.0)}, queues) == [], "it is asked twice again"


def test_whose_queue_has_a_token_takes_that():
    tokens = LostTokens()
    assert tokens.find({1: session(2, 10.0)}, Queues()) == []
    assert tokens.find({1: session(2, 11.0)}, Queues(1)) == []
    assert tokens.find({1: session(2, 12.0)}, Queues(1)) == [1]
