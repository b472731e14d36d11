"""A worker's side of holds: no step is under way while the model is being saved."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

# A hold without news for so long is over: its chief is gone.
SILENCE_SECS = 4.0
_LOOK_SECS = 0.2


class HoldLink(Protocol):
    """The part of `Heartbeat` that holds need."""

    def hear_holds(self, listener: Callable[[int, bool], None]) -> None:
        """Registers a listener for the newest hold, and whether it lasts."""

    def answer_hold(self, number: int) -> None:
        """Says that no step is under way."""


class HoldWatch:
    """Watch for holds; it answers them between steps, and keeps steps waiting.

    Args:
        link: Reports holds, in a thread of its own.
        is_idle: Whether a step that is under way can only be waiting for input.
        cancelled: Whether the worker has to stop; then no hold keeps it.
        is_left: Whether no step can begin any more in the worker's session, so that nothing is to
            be held: the next step fails, and the worker comes back with another session.
    """

    def __init__(
        self,
        link: HoldLink,
        is_idle: Callable[[], bool],
        cancelled: Callable[[], bool] = lambda: False,
        is_left: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_left = is_left
        self._link = link
        self._is_idle = is_idle
        self._cancelled = cancelled
        self._changed = threading.Condition()
        self._number = self._answered = 0
        self._is_held = self._is_started = self._is_in_step = False
        self._heard = 0.0
        self._ended = threading.Event()

    def start(self) -> None:
        """Receives holds from now on; a second call changes nothing."""
        if not self._is_started:
            self._is_started = True
            self._link.hear_holds(self._note)

    def stop(self) -> None:
        """Ends every hold: no further step is made."""
        self._ended.set()
        with self._changed:
            self._changed.notify_all()

    def begin_step(self) -> None:
        """Waits until no hold lasts."""
        self.wait()
        with self._changed:
            self._is_in_step = True
        if self._lasts():  # It came just now.
            self.end_step()
            self.begin_step()

    def end_step(self) -> None:
        """Says that the step is done, or has failed."""
        with self._changed:
            self._is_in_step = False
        self._answer()

    def wait(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Answers the current hold, and waits until it ends.

        Args:
            is_over: Asked meanwhile: whether there is no step any more that is waited for.
        """
        with self._changed:
            # The chief relies on the workers that it has told of holds; a first step would come too
            # soon.
            self._changed.wait_for(lambda: self._heard or not self._is_wanted, SILENCE_SECS)
            self._heard = self._heard or time.monotonic()
        while self._lasts() and not is_over():
            self._answer()
            with self._changed:
                self._changed.wait(_LOOK_SECS)

    def _lasts(self) -> bool:
        with self._changed:
            is_fresh = time.monotonic() - self._heard < SILENCE_SECS
            return self._is_held and is_fresh and self._is_wanted and not self._is_left()

    @property
    def _is_wanted(self) -> bool:
        return self._is_started and not self._ended.is_set() and not self._cancelled()

    def _answer(self) -> None:
        with self._changed:
            number = self._number
            is_due = self._is_held and self._answered != number
            if not is_due or (self._is_in_step and not self._is_idle()):
                return
            self._answered = number
        self._link.answer_hold(number)

    def _note(self, number: int, is_held: bool) -> None:
        with self._changed:
            self._number, self._is_held = number, is_held
            if not is_held:
                self._answered = 0  # Another chief may give the same number.
            self._heard = time.monotonic()
            self._changed.notify_all()
        self._answer()


class HoldHook(tf.compat.v1.train.SessionRunHook):
    """Hook that keeps steps waiting while the model is moved, for a model that leases no input.

    Args:
        holds: Watches for that.
    """

    def __init__(self, holds: HoldWatch) -> None:
        self._holds = holds

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Notes that no step is under way in a new session."""
        self._holds.start()
        self._holds.end_step()

    def before_run(self, run_context: Any) -> None:
        """Waits until a step may begin."""
        self._holds.begin_step()

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Reports that the step is done."""
        self._holds.end_step()

    def end(self, session: Any) -> None:
        """Reports that the last step is done."""
        self._holds.end_step()
