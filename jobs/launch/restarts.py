"""The number and times of restarts of ended processes."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import UsageError
from .ends import describe_exit, was_preempted

log = logging.getLogger(__name__)

MAX_RESTARTS = 3
WINDOW_SECS = 600.0
FIRST_DELAY_SECS = 1.0
MAX_DELAY_SECS = 30.0
# Of a delay: how much of it is left to chance, so that not all come back at the same moment.
JITTER = 0.25


class BudgetSpent(Exception):
    """A process ended after too many restarts; the message has their numbers and names."""


@dataclass(frozen=True)
class _Restart:
    at: float
    name: str
    is_free: bool


class RestartBudget:
    """Allows restarts, so many in a window of time for all processes of a job.

    The first restart of a process is at once. Each further one of the same process within the
    window comes later: after 1, 2, 4 s and so on, and at most 30 s, a quarter of it by chance.

    Example::

        budget = RestartBudget(3, window_secs=600.0)
        while True:
            if process.poll() is not None and budget.is_due("worker-0"):
                process = start()
            time.sleep(0.25)

    Args:
        max_restarts: How many in a window.
        window_secs: Its length. A restart that is longer ago does not count.
        clock: Seconds from any origin.
        chance: Gives a number from 0 to 1.

    Raises:
        UsageError: An argument is out of range.
    """

    def __init__(
        self,
        max_restarts: int = MAX_RESTARTS,
        window_secs: float = WINDOW_SECS,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if max_restarts < 0:
            raise UsageError(f"--max-restarts {max_restarts}: expected at least 0")
        if not window_secs > 0:
            raise UsageError(
                f"--restart-window-secs {window_secs:g}: expected a positive number of seconds"
            )
        self._max_restarts = max_restarts
        self._window_secs = window_secs
        self._clock = clock
        self._chance = chance
        self._restarts: deque[_Restart] = deque()
        self._due: dict[str, float] = {}

    def is_due(self, name: str, *, is_free: bool = False) -> bool:
        """Returns whether to restart an ended process now; called until it is.

        Args:
            name: Name of the process, which stands for its place.
            is_free: True if the restart takes nothing from the budget.

        Raises:
            BudgetSpent: It must not be restarted.
        """
        now = self._clock()
        if name not in self._due:
            self._forget_before(now - self._window_secs)
            if not is_free:
                self._check(name)
            self._due[name] = now + self._delay_secs(name)
            self._restarts.append(_Restart(now, name, is_free))
        if now < self._due[name]:
            return False
        del self._due[name]
        return True

    def is_due_after(self, name: str, code: int) -> bool:
        """Returns the same for a process by its exit code; after a preemption the restart is free.

        Args:
            name: As in `is_due`.
            code: The exit code; negative for a signal.

        Raises:
            BudgetSpent: It must not be restarted.
        """
        is_free = was_preempted(code)
        is_due = self.is_due(name, is_free=is_free)
        if is_due:
            how = "preempted" if is_free else describe_exit(code)
            log.warning("%s: %s; starting it again", name, how)
        return is_due

    def _forget_before(self, moment: float) -> None:
        while self._restarts and self._restarts[0].at < moment:
            self._restarts.popleft()

    def _check(self, name: str) -> None:
        counts = Counter(restart.name for restart in self._restarts if not restart.is_free)
        if counts.total() < self._max_restarts:
            return
        if self._max_restarts == 0:
            raise BudgetSpent("--max-restarts 0 allows none to be started again")
        others = [f"{n} of {other}" for other, n in counts.most_common() if other != name]
        among = f", besides {', '.join(others)}" if others else ""
        raise BudgetSpent(
            f"started again {_times(counts[name])} within {self._window_secs:g} s{among}; "
            f"--max-restarts {self._max_restarts} allows no more"
        )

    def _delay_secs(self, name: str) -> float:
        before = sum(restart.name == name for restart in self._restarts)
        if not before:
            return 0.0
        # A process that ends again and again would make the exponent large.
        secs = min(FIRST_DELAY_SECS * 2.0 ** min(before - 1, 30), MAX_DELAY_SECS)
        return secs * (1 - JITTER * self._chance())


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
