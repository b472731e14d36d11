"""The end of a generation as a value, and the next one's instructions for the model."""

import pytest
import tensorflow as tf

from paramserve.chief.checkpoints.mirrors import RestorePoint
from paramserve.chief.generations import _premise_after
from paramserve.chief.outcomes import LOST_ERRORS, Lost, ServerLost
from paramserve.chief.recovery import NO_PREMISE, Held, Premise
from paramserve.chief.stalls.guard import Stalled

MOVED = Premise(Held.MOVED, RestorePoint(-1, 7, frozenset(), frozenset(), None))
ADOPTED, OWN = Premise(Held.EARLIER_CHIEFS), Premise(Held.OWN)


@pytest.mark.parametrize(
    ("error", "is_stall"),
    [
        (ServerLost("ps:0 is gone"), False),
        (Stalled("ps:0 is gone"), True),
        (tf.errors.UnavailableError(None, None, "ps:0 is gone"), False),
        (tf.errors.DeadlineExceededError(None, None, "ps:0 is gone"), False),
    ],
)
def test_an_error_of_a_lost_generation_is_one_outcome(error, is_stall):
    assert isinstance(error, LOST_ERRORS)
    lost = Lost.of(error)
    assert "ps:0 is gone" in lost.reason
    assert (lost.is_stall, lost.is_begun) == (is_stall, True)


@pytest.mark.parametrize("premise", [NO_PREMISE, ADOPTED, MOVED, OWN])
def test_after_a_stall_the_servers_should_hold_this_chiefs_own_model(premise):
    assert _premise_after(Lost("no step", is_stall=True), premise) == OWN


@pytest.mark.parametrize("premise", [NO_PREMISE, ADOPTED, MOVED, OWN])
def test_after_a_loss_nothing_is_taken_for_granted(premise):
    assert _premise_after(Lost("gone"), premise) == NO_PREMISE


@pytest.mark.parametrize("premise", [NO_PREMISE, ADOPTED, MOVED])
def test_a_session_that_was_never_opened_changes_nothing(premise):
    assert _premise_after(Lost("gone", is_begun=False), premise) == premise
