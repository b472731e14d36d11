"""Presence of workers by what they push, for a dealer in a job without membership."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from .dealer import Look, TokenDealer

_logger = logging.getLogger(__name__)

# In place of a round: the worker computes no further gradient.
LEFT = 2**62

# Of each worker: how many gradients it pushed, and for which round the last.
Pushed = Mapping[int, tuple[int, int]]


class SharedQueueWatch:
    """Workers with one queue: each token of a worker that is gone is for any other.

    Args:
        dealer: Deals the tokens of one queue.
    """

    def __init__(self, dealer: TokenDealer) -> None:
        self.dealer = dealer
        self._left: frozenset[int] | None = None

    def judge(self, look: Look, pushed: Pushed) -> list[int]:
        """Returns tokens to issue at once, by queue; the dealer's shares may have changed."""
        counts = self._meet_leavers(pushed)
        if self.dealer.stalls.is_stalled(look.step):
            if look.waiting < look.replicas:
                more = self._end_stall(look, pushed)
                counts = [one + other for one, other in zip(counts, more, strict=True)]
            self.dealer.stalls.restart()
        return counts

    def _meet_leavers(self, pushed: Pushed) -> list[int]:
        left = frozenset(worker for worker, (_, newest) in pushed.items() if newest == LEFT)
        # Those that had left before have no token now.
        newly = left - self._left if self._left is not None else frozenset()
        self._left = left
        if newly:
            _logger.info("%d workers have left; others get their tokens.", len(newly))
        return [len(newly)]

    def _end_stall(self, look: Look, pushed: Pushed) -> list[int]:
        if look.sizes[0]:
            return [0]
        counts = self.dealer.for_the_late(look)
        _logger.warning("Step %d lacks %d gradients: issuing tokens again.", look.step, *counts)
        return counts


class OwnQueuesWatch(SharedQueueWatch):
    """Workers with a queue each: tokens of those that are gone go to others, until they push.

    Args:
        dealer: Deals the tokens of as many queues as there are workers.
        workers: Workers that are planned.
        chief: The one that is there in any case, as the watch is in its process.
    """

    def __init__(self, dealer: TokenDealer, workers: int, chief: int) -> None:
        super().__init__(dealer)
        self._workers, self._chief = workers, chief
        # What they had pushed when they were given up.
        self._absent: dict[int, int] = {}

    def _meet_leavers(self, pushed: Pushed) -> list[int]:
        absent = {
            worker: count
            for worker, count in self._absent.items()
            if pushed.get(worker, (0, 0))[0] == count
        }
        for worker, (count, newest) in pushed.items():
            if newest == LEFT and worker < self._workers and worker != self._chief:
                absent[worker] = count
        return self._give_up(absent)

    def _end_stall(self, look: Look, pushed: Pushed) -> list[int]:
        late = set(range(self._workers)) - look.given - {self._chief}
        silent = {worker: pushed.get(worker, (0, -1))[0] for worker in late}
        if silent.keys() - self._absent.keys():
            _logger.warning("Step %d lacks gradients of the workers %s.", look.step, sorted(silent))
            return self._give_up({**self._absent, **silent})
        if self.dealer.untaken(look):
            return [0] * self._workers
        # All that are there have pushed: a token was lost with a session.
        missing = look.replicas - look.waiting
        return [missing if each == self._chief else 0 for each in range(self._workers)]

    def _give_up(self, absent: dict[int, int]) -> list[int]:
        self._absent = absent
        return self.dealer.set_workers(
            {worker: "" for worker in range(self._workers) if worker not in absent}
        )
