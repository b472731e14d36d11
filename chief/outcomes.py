"""The outcomes of a generation, as values. `Generations` matches them, in one place."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import tensorflow as tf

from ..cluster.session import PREEMPTION_ERRORS
from ..reasons import reason_of
from .resize.relocation import Resized
from .stalls.guard import Stalled


class ServerLost(Exception):
    """A parameter server is gone, and with it a part of the model."""


LOST_ERRORS = (ServerLost, Stalled, tf.errors.DeadlineExceededError, *PREEMPTION_ERRORS)


class EndReason(enum.StrEnum):
    """Why training ended well, as `result.json` names it."""

    MAX_STEPS = "max_steps"
    END_OF_INPUT = "end_of_input"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Finished:
    """Training is over, and saved if it had begun.

    Attributes:
        reason: Why.
    """

    reason: EndReason


@dataclass(frozen=True)
class Handover:
    """This chief leaves the job to the next one; workers and servers stay unchanged."""


@dataclass(frozen=True)
class Lost:
    """The generation is over before its time, since sessions over its servers broke.

    Attributes:
        reason: Why, for people.
        is_stall: Whether no server is missing: no step was made, so sessions are opened again.
        is_begun: Whether the model may have been touched. It was not if no session was opened.
    """

    reason: str
    is_stall: bool = False
    is_begun: bool = True

    @classmethod
    def of(cls, error: Exception, *, is_begun: bool = True) -> Lost:
        """Returns the outcome that one of `LOST_ERRORS` stands for."""
        return cls(reason_of(error), isinstance(error, Stalled), is_begun)


Outcome = Finished | Handover | Resized | Lost
