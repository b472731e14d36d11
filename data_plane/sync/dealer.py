"""The dealer of tokens: how many each queue gets with a step, and which are issued again.

It is pure bookkeeping. Others look at the parameter server, tell the dealer, and issue what it
returns: always the number of tokens for each queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from .stall_clock import StallClock


@dataclass(frozen=True)
class Look:
    """The step under way, as the parameter server tells of it; not all of one moment.

    Attributes:
        step: Its number: a global step or a round.
        waiting: Gradients that wait for the rest of the step.
        replicas: Gradients that it takes.
        sizes: Tokens in each queue that no worker has taken.
        given: Workers whose gradient for it is there.
    """

    step: int
    waiting: int
    replicas: int
    sizes: tuple[int, ...]
    given: frozenset[int]


class TokenDealer:
    """Deals the tokens of a job over the workers that are there.

    There is one queue for all workers; or worker i has queue i, and workers beyond the plan share
    one more.

    Args:
        queues: Queues, the shared one included.
        tokens: Tokens in a step.
        lease_secs: Seconds without a step after which tokens are issued again.
        has_shared_queue: Whether the last of several queues is for workers beyond the plan.
        follows_workers: Whether a step takes one gradient of each worker that is there.
        clock: Seconds, from any origin.

    Attributes:
        workers: A life of each worker, by its index; "" for one that is expected.
        shares: Tokens that each queue gets with a step.
        stalls: Tells when there was no step for too long.
    """

    def __init__(
        self,
        queues: int,
        tokens: int,
        lease_secs: float,
        *,
        has_shared_queue: bool = True,
        follows_workers: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queues, self._tokens = queues, tokens
        self._has_shared_queue, self._follows_workers = has_shared_queue, follows_workers
        self.stalls = StallClock(lease_secs, clock)
        # The number of a step's gradients may follow the workers. Then: those who were there when
        # its tokens were dealt, the round in which a worker came or went, and the look after that.
        self._computing: set[int] = set()
        self._changed_in: int | None = None
        self._seen: Look | None = None
        self.begin({})

    def begin(self, workers: Mapping[int, str]) -> None:
        """Deals to the workers that are there at the start of training; if none, to the planned."""
        self.workers = dict(workers)
        self._computing = set(workers)
        self.shares = self._deal()

    def set_workers(self, workers: Mapping[int, str], rounds: int = 0) -> list[int]:
        """Deals to the workers that are there from now on.

        A worker that left held a token, and the others would wait forever for its gradient. So its
        token for the step under way is issued again, to those who get its tokens from now on.

        Args:
            workers: A life of each worker, by its index.
            rounds: Steps made so far.

        Returns:
            Tokens to issue at once. None where a step's gradients follow the workers: first it
            has to be clear what the step under way lacks, see `lacks_tokens`.
        """
        if workers == self.workers:
            return self._none()
        gone = {i for i, life in self.workers.items() if life and workers.get(i) != life}
        if self._changed_in is not None and rounds > self._changed_in:
            self._computing = set(self.workers)
        self._computing = {i for i in self._computing if workers.get(i) == self.workers.get(i)}
        self.workers = dict(workers)
        before, self.shares = self.shares, self._deal()
        if self._follows_workers:
            self._changed_in, self._seen = rounds, None
            return self._none()
        return self._for_the_gone(gone, before)

    def queue_of(self, worker: int) -> int:
        """The queue from which a worker takes its tokens."""
        return min(worker, self._queues - 1)

    def lacks_tokens(self, rounds: int) -> bool:
        """Whether the step under way may lack the tokens of a worker that is gone.

        Args:
            rounds: Steps made so far.
        """
        if self._changed_in is None or not self.workers:
            return False
        if rounds > self._changed_in:  # One has begun since, with tokens for all.
            self._changed_in, self._computing = None, set(self.workers)
            return False
        return True

    def refill(self, look: Look) -> list[int]:
        """Returns tokens that the step under way lacks, for the workers that are there.

        It waits for as many gradients as it had tokens at its beginning; those of workers that are
        gone, and had not given theirs, are computed by the others. A look is not of one moment, so
        two in a row have to show the same.
        """
        before, self._seen = self._seen, look
        is_applied_now = bool(look.given) and not look.waiting
        if look != before or is_applied_now:
            return self._none()
        computing = [
            i
            for i in self._computing - look.given
            if i in self.workers and not look.sizes[self.queue_of(i)]
        ]
        counts = self._none()
        takers = sorted(self.workers, key=lambda index: (index not in self._computing, index))
        for number in range(max(0, self.missing(look) - len(computing))):
            counts[self.queue_of(takers[number % len(takers)])] += 1
        # A worker that came meanwhile, and got none of these, gets its first with the next step.
        self._changed_in = None
        self._computing |= {index for index in takers if counts[self.queue_of(index)]}
        return counts

    def untaken(self, look: Look) -> int:
        """Tokens that a worker which is there will take."""
        return sum(size for share, size in zip(self.shares, look.sizes, strict=True) if share)

    def missing(self, look: Look) -> int:
        """Gradients that the step lacks, and for which there is no token to take."""
        return look.replicas - look.waiting - self.untaken(look)

    def for_the_late(self, look: Look) -> list[int]:
        """Returns tokens that end a stall, for workers with none to take and no gradient given.

        A worker that only is slow then has a token too many; its gradient comes too late and is
        dropped.
        """
        missing, counts = self.missing(look), self._none()
        if self._queues == 1:
            return [max(0, min(self.shares[0], missing))]
        for index in sorted(set(self.workers) - look.given):
            queue = self.queue_of(index)
            if not look.sizes[queue] and sum(counts) < missing:
                counts[queue] += 1
        # All have given theirs, so a worker that computes for a missing one has lost its token.
        for queue, share in enumerate(self.shares):
            if not sum(counts) and not look.sizes[queue]:
                counts[queue] = max(0, min(share, missing))
        return counts

    def _none(self) -> list[int]:
        return [0] * self._queues

    def _deal(self) -> list[int]:
        if self._queues == 1:
            return [self._tokens]
        tokens = 1 if self._follows_workers else self._tokens
        if self._has_shared_queue:
            return deal(self.workers, self._queues, tokens)
        return deal(self.workers, self._queues + 1, tokens)[:-1]

    def _for_the_gone(self, gone: set[int], before: list[int]) -> list[int]:
        if self._queues == 1:
            return [len(gone)]
        counts = [max(0, now - then) for now, then in zip(self.shares, before, strict=True)]
        for index in gone & set(self.workers):  # Another life with the same queue.
            queue = self.queue_of(index)
            counts[queue] = max(1, counts[queue])
        return counts


def deal(present: Collection[int], queues: int, tokens: int) -> list[int]:
    """How many tokens each queue gets in a round: one for each worker, and no fewer than `tokens`.

    Worker i has queue i; the last queue is shared by all further workers. They are backup workers
    while nobody is missing.

    Args:
        present: Indices of the workers that are there; if it is empty, all with a queue are
            expected.
        queues: How many queues there are.
        tokens: How many tokens there are at least.
    """
    own = range(queues - 1)
    shares = [int(index in present or not present) for index in own]
    shares.append(sum(index not in own for index in present))
    takers: Sequence[int] = [queue for queue, share in enumerate(shares) if share]
    takers = takers or [queues - 1]
    for number in range(tokens - sum(shares)):
        shares[takers[number % len(takers)]] += 1
    return shares
