"""Presence of workers by their pushes, for a dealer in a job without membership."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from .dealer import Look, TokenDealer

_logger = logging.getLogger(__name__)

# In place of a round: the worker computes no further gradient.
LEFT = 2**62

# Of each worker: how many gradients it pushed, and for which round the last.
Pushed = Mapping[int, tuple[int, int]]


class LedgerWatch:
    """A watch over the workers for a dealer, which also ends stalls.

    A worker is gone when it reports that, until it pushes again. If workers have queues of their
    own, silent ones are given up at a stall, also until they push.

    Args:
        dealer: Deals the tokens.
        chief: The worker that is always there, as the watch is in its process.
    """

    def __init__(self, dealer: TokenDealer, chief: int) -> None:
        self._dealer, self._chief = dealer, chief
        # Workers that had left before the first look have no token to lose.
        self._left: set[int] | None = None
        # The silent workers' pushes when they were given up.
        self._silent: dict[int, int] = {}

    def judge(self, look: Look, pushed: Pushed) -> list[int]:
        """Returns tokens to issue at once, by queue; the dealer's shares may have changed."""
        counts = self._follow(pushed)
        if self._dealer.stalls.is_stalled(look.step):
            if look.waiting < look.replicas:
                more = self._end_stall(look, pushed)
                counts = [one + other for one, other in zip(counts, more, strict=True)]
            self._dealer.stalls.restart()
        return counts

    def _follow(self, pushed: Pushed) -> list[int]:
        plan = self._dealer.plan
        left = {worker for worker, (_, newest) in pushed.items() if newest == LEFT}
        newly = left - (left if self._left is None else self._left)
        self._left = left
        if newly:
            _logger.info("%d workers have left; others get their tokens.", len(newly))
        if not plan.has_own_queues:
            return [len(newly)]  # Their tokens are for any other.
        self._silent = {i: n for i, n in self._silent.items() if pushed.get(i, (0, 0))[0] == n}
        there = set(range(plan.workers)) - left - self._silent.keys() | {self._chief}
        return self._dealer.set_workers(dict.fromkeys(there, ""))

    def _end_stall(self, look: Look, pushed: Pushed) -> list[int]:
        plan = self._dealer.plan
        counts = [0] * plan.queues
        if late := set(self._dealer.workers) - look.given - {self._chief}:
            _logger.warning("Step %d lacks gradients of the workers %s.", look.step, sorted(late))
            self._silent |= {worker: pushed.get(worker, (0, 0))[0] for worker in late}
            return self._follow(pushed)
        # All present workers have pushed, and no token is left: one was lost with a session.
        if not self._dealer.untaken(look):
            counts[plan.queue_of(self._chief)] = look.replicas - look.waiting
            _logger.warning("Step %d lacks gradients: issuing %d tokens.", look.step, sum(counts))
        return counts
