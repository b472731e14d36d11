"""The dealer of tokens: each queue's tokens in a step, and the tokens issued again.

It is pure bookkeeping. Its callers look at the parameter server, inform the dealer, and issue the
tokens that it returns: always the number for each queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

# A step may take so many times as long as those before it.
_PATIENCE = 3.0
# The longest step weighs less with each further one, so a slow phase does not count forever.
_FORGETTING = 0.9


@dataclass(frozen=True)
class TokenPlan:
    """The queues of a job, and the tokens in each round.

    Worker i has queue i, and workers beyond the plan share one more; or all share one queue.

    Attributes:
        replicas: Gradients in a round.
        workers: Workers planned. With more than `replicas`, the last are backup workers; with
            fewer, each computes several gradients.
        has_own_queues: True if each planned worker has a queue, so that a round takes one gradient
            of each and not two of a fast one. Otherwise tokens are for the first worker to take
            one.
        follows_workers: True if a round takes one gradient of each worker that is there.
    """

    replicas: int
    workers: int
    has_own_queues: bool
    follows_workers: bool = False

    @classmethod
    def of_job(cls, replicas: int, workers: int) -> TokenPlan:
        """Returns the service's plan; with `replicas=0`, a round has a gradient of each worker."""
        return cls(replicas or workers, workers, replicas in (0, workers), replicas == 0)

    @property
    def tokens(self) -> int:
        """Tokens in a round, so gradients that are computed for it."""
        return max(self.workers, self.replicas)

    @property
    def queues(self) -> int:
        """The number of queues."""
        return self.workers + 1 if self.has_own_queues else 1

    def queue_of(self, worker: int) -> int:
        """Returns the queue from which a worker takes its tokens."""
        return min(worker, self.queues - 1)

    def deal(self, present: Collection[int] = ()) -> list[int]:
        """Returns the number of tokens of each queue in a round.

        There is one for each present worker; if `present` is empty, all are expected. Tokens of
        missing workers go to others, unless rounds follow the workers.
        """
        if not self.has_own_queues:
            return [self.tokens]
        own = range(self.workers)
        shares = [int(index in present or not present) for index in own]
        shares.append(sum(index not in own for index in present))
        takers = [queue for queue, share in enumerate(shares) if share]
        missing = 0 if self.follows_workers else self.tokens - sum(shares)
        for number in range(missing):
            shares[takers[number % len(takers)]] += 1
        return shares


@dataclass(frozen=True)
class Look:
    """The step under way, as read from the parameter server, not all at one moment.

    Attributes:
        step: Its number: a global step or a round.
        waiting: Gradients that wait for the rest of the step.
        replicas: Gradients that it takes.
        sizes: Tokens in each queue that no worker has taken.
        given: Workers that have given their gradient for it.
    """

    step: int
    waiting: int
    replicas: int
    sizes: tuple[int, ...]
    given: frozenset[int]


class StallClock:
    """Tells when a job has made no step for too long: for `lease_secs`, or longer than usual."""

    def __init__(self, lease_secs: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_secs, self._clock, self._since = lease_secs, clock, clock()
        self._step: int | None = None
        self._longest = 0.0
        self._is_clean = False

    def is_stalled(self, step: int) -> bool:
        """Returns whether the job is at this step for longer than steps take here."""
        now = self._clock()
        if step != self._step:
            # The wait before the first step, or an interrupted one, is no measure of a step.
            if self._is_clean:
                self._longest = max(now - self._since, _FORGETTING * self._longest)
            self._is_clean = self._step is not None
            self._step, self._since = step, now
            return False
        return now - self._since > max(self._lease_secs, _PATIENCE * self._longest)

    def restart(self) -> None:
        """Begins another wait, after something was done about the stall."""
        self._since, self._is_clean = self._clock(), False


class TokenDealer:
    """The distribution of a job's tokens among the present workers.

    Attributes:
        workers: A life of each worker, by its index; "" for an expected one.
        shares: Tokens that each queue gets with a step.
        stalls: Detects that there was no step for too long.
    """

    def __init__(
        self, plan: TokenPlan, lease_secs: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.plan = plan
        self.stalls = StallClock(lease_secs, clock)
        # If rounds follow the workers: the workers present when the tokens of this round were
        # dealt, the round in which a worker came or went, and the look after that.
        self._computing: set[int] = set()
        self._changed_in: int | None = None
        self._seen: Look | None = None
        self.begin({})

    def begin(self, workers: Mapping[int, str]) -> None:
        """Deals to the workers present at the start of training; if none, to the planned ones."""
        self.workers, self._computing = dict(workers), set(workers)
        self.shares = self.plan.deal(workers)

    def set_workers(self, workers: Mapping[int, str], rounds: int = 0) -> list[int]:
        """Deals to the workers present from now on, after so many rounds.

        A worker that left held a token, and the others would wait forever for its gradient. So its
        token for the step under way is issued again, to the workers that get its tokens from now
        on. If rounds follow the workers, the missing tokens have to be known first, see
        `lacks_tokens`.
        """
        if workers == self.workers:
            return self._none()
        gone = {i for i, life in self.workers.items() if life and workers.get(i) != life}
        if self._changed_in is not None and rounds > self._changed_in:
            self._computing = set(self.workers)
        self._computing = {i for i in self._computing if workers.get(i) == self.workers.get(i)}
        before = self.shares
        self.workers, self.shares = dict(workers), self.plan.deal(workers)
        if self.plan.follows_workers:
            self._changed_in, self._seen = rounds, None
            return self._none()
        if not self.plan.has_own_queues:
            return [len(gone)]
        counts = [max(0, now - then) for now, then in zip(self.shares, before, strict=True)]
        for queue in {self.plan.queue_of(index) for index in gone & set(workers)}:
            counts[queue] = max(1, counts[queue])  # Another life with the same queue.
        return counts

    def lacks_tokens(self, rounds: int) -> bool:
        """Returns whether the step after so many rounds may lack the tokens of a lost worker."""
        if self._changed_in is None or not self.workers:
            return False
        if rounds > self._changed_in:  # One has begun since, with tokens for all.
            self._changed_in, self._computing = None, set(self.workers)
            return False
        return True

    def refill(self, look: Look) -> list[int]:
        """Returns tokens that the step under way lacks, for the present workers.

        It waits for as many gradients as it had tokens at its beginning. The present workers
        compute those that lost workers had not given. A look is not of one moment, so two in a row
        have to show the same.
        """
        before, self._seen = self._seen, look
        is_applied_now = bool(look.given) and not look.waiting
        if look != before or is_applied_now:
            return self._none()
        computing = self._without_token(look) & self._computing
        counts = self._none()
        takers = sorted(self.workers, key=lambda index: (index not in self._computing, index))
        for number in range(max(0, self.missing(look) - len(computing))):
            counts[self.plan.queue_of(takers[number % len(takers)])] += 1
        # A worker that came meanwhile, and got none of these, gets its first with the next step.
        self._changed_in = None
        self._computing |= {index for index in takers if counts[self.plan.queue_of(index)]}
        return counts

    def untaken(self, look: Look) -> int:
        """Returns the tokens that a present worker will take."""
        return sum(size for share, size in zip(self.shares, look.sizes, strict=True) if share)

    def missing(self, look: Look) -> int:
        """Returns the gradients that the step lacks, and for which there is no token to take."""
        return look.replicas - look.waiting - self.untaken(look)

    def for_the_late(self, look: Look) -> list[int]:
        """Returns tokens that end a stall, for workers with none to take and no gradient given.

        A worker that only is slow then has a token too many; its gradient comes too late and is
        dropped.
        """
        missing, counts = max(0, self.missing(look)), self._none()
        if not self.plan.has_own_queues:
            return [min(self.shares[0], missing)]
        for index in sorted(self._without_token(look))[:missing]:
            counts[self.plan.queue_of(index)] += 1
        # All have given theirs, so a worker that computes for a missing one has lost its token.
        for queue, share in enumerate(self.shares):
            if not look.sizes[queue] and not any(counts):
                counts[queue] = min(share, missing)
        return counts

    def _without_token(self, look: Look) -> set[int]:
        """Workers that have not given their gradient, and have no token to take."""
        late = set(self.workers) - look.given
        return {index for index in late if not look.sizes[self.plan.queue_of(index)]}

    def _none(self) -> list[int]:
        return [0] * self.plan.queues
