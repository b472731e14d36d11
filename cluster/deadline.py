"""Bounded waits: deadlines, pauses between checks, and calls that can be abandoned."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import tensorflow as tf

POLL_SECS = 0.1
MAX_POLL_SECS = 1.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class Deadline:
    """The time at which a wait runs out.

    Attributes:
        max_wait_secs: How long the wait is in all; infinity waits without limit.
        ends_at: When it ends, in seconds of `clock`.
        clock: Returns the time in seconds; only differences count.
    """

    max_wait_secs: float
    ends_at: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(
        cls, max_wait_secs: float | None, clock: Callable[[], float] = time.monotonic
    ) -> Self:
        """Returns a wait that starts now; None waits without limit."""
        secs = math.inf if max_wait_secs is None else float(max_wait_secs)
        return cls(secs, clock() + secs, clock)

    def remaining_secs(self) -> float:
        """Returns the seconds left, 0.0 when none are."""
        return max(0.0, self.ends_at - self.clock())

    def sleep(self, secs: float) -> None:
        """Waits `secs`, or for the remaining time if that is less."""
        time.sleep(min(secs, self.remaining_secs()))

    def error(self, missing: str) -> tf.errors.DeadlineExceededError:
        """Returns the error of a wait that ran out; `missing` names the awaited things."""
        message = f"Session was not ready after waiting {self.max_wait_secs:g} secs. {missing}"
        return tf.errors.DeadlineExceededError(None, None, message)


def growing_pauses(first_secs: float = POLL_SECS) -> Iterator[float]:
    """Yields seconds to wait between looks, growing, without an end."""
    secs = first_secs
    while True:
        yield secs
        secs = max(first_secs, min(secs * 1.5, MAX_POLL_SECS))


def call_in_background(name: str, function: Callable[[], Result]) -> Future[Result]:
    """Calls `function` in a daemon thread, which its caller can stop waiting for."""
    future: Future[Result] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name=name, daemon=True).start()
    return future


def has_ended(call: Future[Any], timeout_secs: float) -> bool:
    """Waits for a call at most `timeout_secs`, infinity included, and says whether it ended."""
    return bool(wait([call], min(timeout_secs, threading.TIMEOUT_MAX)).done)
