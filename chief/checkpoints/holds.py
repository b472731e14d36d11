"""Holds the workers of an async job between two steps, so that what is saved is of one moment.

Workers apply their updates by themselves, and nothing on the parameter servers could stop them
without stopping those for ever whose chief dies. So they are asked: each watches for a hold,
finishes its step, answers, and goes on when the hold is over, or when the chief is silent.
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

log = logging.getLogger(__name__)

# How often a hold that waits for workers sees whether it is given up.
LOOK_SECS = 0.05


def given_up_error() -> tf.errors.CancelledError:
    """The error of a hold whose model was lost while it waited for a step to end."""
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
        self._answers: dict[tuple[Task, str], int] = {}
        self._watching: Counter[tuple[Task, str]] = Counter()
        self._one = threading.Lock()
        self.changed = threading.Condition(threading.RLock())

    @property
    def is_held(self) -> bool:
        """Whether a hold lasts."""
        return self._is_held

    @contextmanager
    def paused(
        self, timeout_secs: float, *, given_up: Callable[[], bool] = lambda: False
    ) -> Iterator[bool]:
        """Holds all workers; yields whether every one has answered in time.

        One that does not watch for holds is not waited for: it has not begun to train.

        Args:
            timeout_secs: Seconds to wait for them.
            given_up: Asked meanwhile: whether there is nothing left to be held.

        Raises:
            tf.errors.CancelledError: It was given up.
        """
        with self._one:
            try:
                with self.changed:
                    self._number += 1
                    self._is_held = True
                    self.changed.notify_all()
                    is_held = self._await_answers(timeout_secs, given_up)
                yield is_held
            finally:
                with self.changed:
                    self._is_held = False
                    self.changed.notify_all()

    def watch(
        self, task: Task, incarnation: str, is_active: Callable[[], bool], every_secs: float
    ) -> Iterator[tuple[int, bool]]:
        """Yields the number of the newest hold, and whether it lasts, at each change and beat.

        Args:
            task: Who watches.
            incarnation: Which life of it.
            is_active: Whether it still does.
            every_secs: Seconds between two when nothing changes.
        """
        life = (task, incarnation)
        with self.changed:
            self._watching[life] += 1
        try:
            while is_active():
                now = self._now
                yield now
                with self.changed:
                    if self._now == now:
                        self.changed.wait(every_secs)
        finally:
            with self.changed:
                self._watching[life] -= 1
                self.changed.notify_all()

    def answer(self, task: Task, incarnation: str, number: int) -> None:
        """Notes that a worker makes no step until a hold is over."""
        with self.changed:
            self._answers[task, incarnation] = number
            self.changed.notify_all()

    @property
    def _now(self) -> tuple[int, bool]:
        with self.changed:
            return self._number, self._is_held

    def _await_answers(self, timeout_secs: float, given_up: Callable[[], bool]) -> bool:
        """Whether all have answered; the lock is held."""
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

    def _late(self) -> list[tuple[Task, str]]:
        return [
            life
            for life in self._workers()
            if self._watching[life] > 0 and self._answers.get(life) != self._number
        ]
