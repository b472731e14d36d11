"""Holds the workers of an async job between two steps, so that a save is of one moment.

Workers apply their updates by themselves. The parameter servers could stop them only in a way that
stops them forever if the chief dies. So the chief asks: each worker watches for a hold, finishes
its step and answers. It continues when the hold is over, or when the chief is silent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tensorflow as tf

from ...cluster.spec import Task
from ..changes import Changes

log = logging.getLogger(__name__)

# How often a hold that waits for workers sees whether it is given up.
LOOK_SECS = 0.05


def given_up_error() -> tf.errors.CancelledError:
    """Makes the error of a hold whose model was lost while it waited for a step to end."""
    return tf.errors.CancelledError(None, None, "the hold was given up: the model is lost")


class Holds:
    """The holds of a job, one at a time.

    Args:
        workers: Gives the workers that are up, each with its incarnation.
    """

    def __init__(self, workers: Callable[[], set[tuple[Task, str]]]) -> None:
        self._workers = workers
        self._number = 0
        self._is_held = False
        self._watching: Counter[tuple[Task, str]] = Counter()
        self._unanswered: set[tuple[Task, str]] = set()
        self._one = threading.Lock()
        self.changed = Changes()

    @property
    def is_held(self) -> bool:
        """True while a hold lasts."""
        return self._is_held

    @contextmanager
    def paused(
        self, timeout_secs: float, *, given_up: Callable[[], bool] = lambda: False
    ) -> Iterator[bool]:
        """Holds all workers; yields whether every one has answered in time.

        A worker that does not watch for holds is not waited for: it has not begun to train.

        Args:
            timeout_secs: Seconds to wait for them.
            given_up: Called meanwhile; returns whether there is nothing left to be held.

        Raises:
            tf.errors.CancelledError: The hold was given up.
        """
        with self._one:
            try:
                with self.changed:
                    self._number += 1
                    self._is_held = True
                    self._unanswered = set(self._watching)
                    self.changed.notify_all()
                    is_held = self._await_answers(timeout_secs, given_up)
                yield is_held
            finally:
                with self.changed:
                    self._is_held = False
                    self.changed.notify_all()

    def begin_watching(self, task: Task, incarnation: str) -> None:
        """Notes that a worker receives holds from now on, the present one included."""
        with self.changed:
            self._watching[task, incarnation] += 1
            self._unanswered.add((task, incarnation))

    def end_watching(self, task: Task, incarnation: str) -> None:
        """Notes that a worker receives no more holds."""
        life = (task, incarnation)
        with self.changed:
            self._watching[life] -= 1
            if self._watching[life] <= 0:
                del self._watching[life]
                self._unanswered.discard(life)
                self.changed.notify_all()

    def answer(self, task: Task, incarnation: str, number: int) -> None:
        """Notes that a worker makes no step until a hold is over."""
        with self.changed:
            if number == self._number:
                self._unanswered.discard((task, incarnation))
                if not self._unanswered:
                    self.changed.notify_all()

    @property
    def now(self) -> tuple[int, bool]:
        """The number of the newest hold, and whether it lasts."""
        return self._number, self._is_held

    def _await_answers(self, timeout_secs: float, given_up: Callable[[], bool]) -> bool:
        """Returns whether all have answered; the lock is held."""
        deadline = time.monotonic() + timeout_secs
        while late := self._late():
            if given_up():
                raise given_up_error()
            left = deadline - time.monotonic()
            if left <= 0:
                names = ", ".join(sorted(str(task) for task, _ in late))
                log.warning("%s did not finish a step within %g s of a hold", names, timeout_secs)
                return False
            self.changed.wait(min(left, LOOK_SECS))
        return True

    def _late(self) -> set[tuple[Task, str]]:
        return self._unanswered & self._workers() if self._unanswered else set()
