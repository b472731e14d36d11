"""The phases of a job and the transitions between them."""

from __future__ import annotations

import enum


class Phase(enum.StrEnum):
    """The phase of a job, as the status names it.

    ::

        WAITING -> INITIALIZING -> TRAINING -> STOPPING -> EVALUATING -> DONE
                     ^     ^           |
                     |     +- SCALING -+
                     |
                     +- RECOVERING <- WAITING, INITIALIZING, TRAINING, SCALING, STOPPING

        WAITING, RECOVERING, SCALING, STOPPING -> DONE: a stop, without an evaluation
        any of them -> FAILED
    """

    WAITING = "waiting"
    INITIALIZING = "initializing"
    TRAINING = "training"
    RECOVERING = "recovering"
    SCALING = "scaling"
    STOPPING = "stopping"
    EVALUATING = "evaluating"
    DONE = "done"
    FAILED = "failed"

    def enter(self, following: Phase) -> Phase:
        """Returns the phase that follows, which may be this one.

        Raises:
            IllegalTransition: A job in this phase cannot enter that one.
        """
        if following not in (self, Phase.FAILED) and following not in _FOLLOWING[self]:
            raise IllegalTransition(f"a job that is {self} cannot become {following}")
        return following

    @property
    def is_final(self) -> bool:
        """True if the job has ended."""
        return self in (Phase.DONE, Phase.FAILED)


class IllegalTransition(RuntimeError):
    """A phase was to follow another that it cannot follow: a defect of the chief."""


_FOLLOWING: dict[Phase, tuple[Phase, ...]] = {
    Phase.WAITING: (Phase.INITIALIZING, Phase.RECOVERING, Phase.DONE),
    Phase.INITIALIZING: (Phase.TRAINING, Phase.RECOVERING),
    Phase.TRAINING: (Phase.STOPPING, Phase.RECOVERING, Phase.SCALING),
    Phase.RECOVERING: (Phase.INITIALIZING, Phase.DONE),
    Phase.SCALING: (Phase.INITIALIZING, Phase.RECOVERING, Phase.DONE),
    Phase.STOPPING: (Phase.EVALUATING, Phase.RECOVERING, Phase.DONE),
    Phase.EVALUATING: (Phase.DONE,),
    Phase.DONE: (),
    Phase.FAILED: (),
}
