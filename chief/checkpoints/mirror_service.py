"""Takes restore points beside training, on a timer."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Set
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from ...reasons import reason_of
from .mirrors import Mirrors, RestorePoint

log = logging.getLogger(__name__)

# Seconds for which a restore point waits for the step under way, so that it falls between two.
PAUSE_SECS = 5.0
# A server that is new has no copies of its neighbour's variables: they are made soon.
_SOON_SECS = 0.05
# Of how many restore points the slowest says how long the next one may take.
_REMEMBERED = 8
_LEAST_SHARE = 0.25
# Share of the requested seconds: a step under way, or a slower copy, is added to it.
_PLANNED_SHARE = 0.9


class Pace:
    """The pauses between restore points, so that a loss costs no more than some seconds of steps.

    A loss returns to the newest whole point. Just before the next one is whole, that point is as
    old as the pause between them and the duration of both.

    Args:
        every_secs: Seconds of steps that a loss may cost. At least a quarter of them is paused.
    """

    def __init__(self, every_secs: float) -> None:
        self._every_secs = every_secs
        self._took: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, secs: float) -> None:
        """Notes how long a restore point took."""
        self._took.append(secs)

    @property
    def pause_secs(self) -> float:
        """Seconds from the end of one restore point to the beginning of the next."""
        longest = max(self._took, default=0.0)
        return max(_LEAST_SHARE * self._every_secs, _PLANNED_SHARE * self._every_secs - 2 * longest)


class MirrorService:
    """A thread that takes restore points.

    Args:
        mirrors: Takes the restore points.
        session: The chief's session.
        every_secs: Seconds of steps that a loss may cost, see `Pace`.
        paused: Makes a context in which no step is applied, given how long to wait for it.
        extra: Returns the rest of a restore point, see `Mirrors.take`.
    """

    def __init__(
        self,
        mirrors: Mirrors,
        session: Any,
        every_secs: float,
        paused: Callable[[float], AbstractContextManager[Any]],
        extra: Callable[[], Any] = lambda: None,
    ) -> None:
        self._mirrors = mirrors
        self._session = session
        self._pace = Pace(every_secs)
        self._paused = paused
        self._extra = extra
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirrors", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, max_wait_secs: float = PAUSE_SECS) -> None:
        """Ends the thread, after the restore point that it may be taking.

        Args:
            max_wait_secs: How long to wait for that point; it does not count then.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(max_wait_secs)
        if self._thread.is_alive():
            self._mirrors.abandon()

    def take(self) -> RestorePoint:
        """Takes one now; to be called while no step is applied, and after `stop`.

        Raises:
            tf.errors.OpError: A parameter server is gone; the point before stands.
        """
        return self._mirrors.take(self._session, nullcontext, self._extra)

    def would_survive(self, lost: Set[int]) -> bool:
        """Returns whether a restore point of now would survive the loss of some servers at once."""
        return self._mirrors.would_survive(lost)

    @property
    def is_running(self) -> bool:
        """True if the thread lives."""
        return self._thread.is_alive()

    def _run(self) -> None:
        mirrors = self._mirrors
        soon = mirrors.point is None or mirrors.is_wanted_soon
        while not self._ended.wait(_SOON_SECS if soon else self._pace.pause_secs):
            soon, began = False, time.monotonic()
            try:
                point = mirrors.take(self._session, lambda: self._paused(PAUSE_SECS), self._extra)
                self._pace.note(time.monotonic() - began)
                log.debug("restore point at step %d", point.global_step)
            except (tf.errors.OpError, RuntimeError) as error:
                # The recovery makes a new session, and another of these services.
                if not self._ended.is_set():
                    log.warning("no restore point: %s", reason_of(error))
                return
