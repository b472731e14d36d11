"""The ledger: which shards of the input are read, by whom, and which have to be read again.

What *counts* is not written here. The parameter servers count with each update how often a batch
has been applied (`model.input_counts`), so the counts are part of the model: they are saved,
mirrored and restored with it, and a batch has been read exactly when the model has seen it. The
ledger deals what they say is missing. Its own memory is of things that may be forgotten: who reads
what now, and what failed how often.

Pure bookkeeping behind one lock: no network, no TensorFlow, and the clock is a parameter.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...cluster.spec import Task
from ...errors import UsageError
from ...model.input.shard_plan import InputPlan
from .counts import WITHOUT_END, BatchCounts
from .failures import Failures, SetAside
from .leases import Closed, Finished, Grant, Held, LedgerProgress, NoDataset

__all__ = ["Finished", "Grant", "LedgerProgress", "NoDataset", "ShardLedger"]

log = logging.getLogger(__name__)

# How long after its end a lease's last updates may take to be counted.
SETTLE_SECS = 2.0
# Sync mode: a gradient that is not seen waiting so often had the time to be counted, if it ever is.
SETTLE_LOOKS = 2
MAX_FAILURES = 3
# Who has not asked for a shard for so long does not count as somebody who could read another's.
READER_SECS = 60.0


class ShardLedger:
    """Deals the shards of one dataset.

    Every method may be called from any thread. `changed` is notified when a shard may have become
    free, or the last one is done.

    Example::

        ledger = ShardLedger(sync=False)
        ledger.declare(plan)
        ledger.restore(saved, counts_of_the_restored_model)
        grant = ledger.lease(task, incarnation)
        ledger.finish(task, incarnation, [Finished(grant)])
        if ended := ledger.ended:
            ledger.settle(ended, counts_of_the_model)

    Args:
        sync: Whether gradients are aggregated: a worker that waits then keeps others from going on.
        max_failures: Failures in the same place after which it is set aside.
        max_bad_records: Records that may be set aside; None: any number.
        settle_secs: Seconds after a lease's end for which its updates may still come.
        clock: Seconds from any origin.
        first_lease: Number of the first lease.
    """

    def __init__(
        self,
        *,
        sync: bool = False,
        max_failures: int = MAX_FAILURES,
        max_bad_records: int | None = None,
        settle_secs: float = SETTLE_SECS,
        clock: Callable[[], float] = time.monotonic,
        first_lease: int | None = None,
    ) -> None:
        self._sync = sync
        self._settle_secs = settle_secs
        self._clock = clock
        # A new chief must not take a lease of the one before for one of its own.
        self._numbers = itertools.count(time.time_ns() if first_lease is None else first_lease)
        self._plan: InputPlan | None = None
        self._failures = Failures(max_failures, max_bad_records)
        self._held: dict[int, Held] = {}
        self._closed: dict[int, Closed] = {}
        # Shards whose batches wait for others to make up a step: in which epoch, and which.
        self._fills: dict[int, tuple[int, list[int]]] = {}
        self._waits: dict[Task, float] = {}
        self._asked: dict[Task, float] = {}
        self._adopt_until = -float("inf")
        self._repeated = 0
        self._order: tuple[int, Any] = (-1, None)
        self.changed = threading.Condition(threading.RLock())

    # -- what the chief does

    def declare(self, plan: InputPlan) -> None:
        """Says what is read; nothing has been applied so far. A second call changes nothing.

        Raises:
            UsageError: Something else was declared before.
        """
        with self.changed:
            if self._plan is not None:
                if (self._plan.digest, self._plan.epochs) != (plan.digest, plan.epochs):
                    raise UsageError(
                        f"dataset {plan.name!r} differs from what was declared before "
                        f"({self._plan.name!r}): all tasks have to declare the same"
                    )
                return
            self._plan = plan
            self._counts = BatchCounts(plan)
            self._busy = np.zeros(plan.num_shards, bool)
            self._done = np.zeros(plan.num_shards, np.int64)

    def restore(
        self, saved: Mapping[str, Any] | None, applied: Any, *, adopt_secs: float = 0.0
    ) -> None:
        """Takes over the counts of a model that was restored, initialized, or found alive.

        All leases are void, unless their holders come forward within `adopt_secs`.

        Args:
            saved: What `snapshot` gave at that point; None: nothing is known of it.
            applied: How often each batch has been applied in that model; shape [batches].
            adopt_secs: Seconds for which nothing is dealt and running leases are adopted: for a
                new chief that found the model alive, and workers that train on meanwhile.

        Raises:
            UsageError: The model was trained on the same number of other batches, or more records
                are set aside than may be.
        """
        with self.changed:
            saved = saved or {"digest": self._declared().digest, "surplus": {}, "set_aside": []}
            self._check_layout(saved)
            self._counts.take(applied)
            self._counts.restore(saved["surplus"])
            for aside in self._failures.restore(saved["set_aside"]):
                if not aside.for_good:
                    self._counts.excuse(aside.shard, aside.epoch, aside.batches)
            self._held.clear()
            self._closed.clear()
            self._fills.clear()
            self._waits.clear()
            self._busy[:] = False
            self._adopt_until = self._clock() + adopt_secs
            self._done = self._counts.all_epochs_done()
            for shard in self._failures.shards_aside:
                self._recount(shard)
            self.changed.notify_all()

    def snapshot(self) -> dict[str, Any]:
        """What should lie beside a checkpoint, as a JSON-able dict; the counts are within it."""
        with self.changed:
            plan = self._declared()
            return {
                "dataset": plan.name,
                "digest": plan.digest,
                "surplus": self._counts.snapshot(),
                "set_aside": self._failures.snapshot(),
            }

    def release(self, task: Task, incarnation: str | None, *, failed: bool) -> None:
        """Takes back what a task reads that is lost or has left.

        Args:
            task: The task.
            incarnation: Which life of it; None: any.
            failed: Whether it may have been the input that ended it.
        """
        with self.changed:
            self._asked.pop(task, None)
            for held in [h for h in self._held.values() if h.task == task]:
                if incarnation in (None, held.incarnation):
                    self._waits.pop(task, None)
                    error = f"{task} was lost while reading it" if failed else ""
                    self._close(held.grant, orderly=False, error=error)
            self.changed.notify_all()

    @property
    def ended(self) -> frozenset[int]:
        """Leases that have ended and are to be compared with counts that are read from now on."""
        with self.changed:
            return frozenset(self._closed)

    def settle(self, ended: Collection[int], applied: Any, waiting: Collection[int] = ()) -> None:
        """Compares leases that ended with what was applied: they are done, or dealt again.

        Args:
            ended: What `ended` said before the rest was read: older counts would not know of the
                last steps of a lease.
            applied: How often each batch has been applied; shape [batches].
            waiting: Sync mode: batches whose gradients wait for the rest of their step. Read with
                `applied`; it need not be of the very same moment.
        """
        with self.changed:
            self._counts.take(applied)
            for closed in [c for number, c in self._closed.items() if number in ended]:
                shard = closed.grant.shard
                missing = self._missing(shard, closed.grant.epoch)
                first = int(self._declared().first_batches[shard])
                wait = [batch for batch in missing if first + batch in waiting]
                closed.quiet = 0 if wait else closed.quiet + 1
                if not missing or self._is_settled(closed):
                    self._settle_one(closed, missing)
                elif wait and self._has_to_fill(closed):
                    self._settle_one(closed, missing)
                    self._fills[shard] = closed.grant.epoch, wait
            self.changed.notify_all()

    # -- what workers ask for

    def lease(
        self,
        task: Task,
        incarnation: str,
        *,
        held: Sequence[Grant] = (),
        wait_secs: float = 0.0,
    ) -> Grant | None:
        """Gives a task a shard to read; None if there is none now, or none any more.

        Args:
            task: Who asks.
            incarnation: Which life of it.
            held: What it reads already.
            wait_secs: Seconds to wait for one.

        Raises:
            NoDataset: Nothing was declared.
        """
        deadline = time.monotonic() + wait_secs
        with self.changed:
            self._declared()
            self._adopt(task, incarnation, held)
            self._drop_unknown(task, incarnation, {each.lease for each in held})
            while True:
                self._asked[task] = self._clock()
                grant = self._deal(task, incarnation)
                left = deadline - time.monotonic()
                if grant is None:
                    self._waits.setdefault(task, self._clock())
                else:
                    self._waits.pop(task, None)
                if grant is not None or left <= 0 or self.is_exhausted:
                    return grant
                self.changed.wait(left)

    def starved(self, secs: float) -> set[Task]:
        """Tasks that read nothing, and have asked for a shard for so many seconds in vain.

        In sync mode nobody should wait for their gradients.
        """
        with self.changed:
            now, holders = self._clock(), {held.task for held in self._held.values()}
            return {t for t, since in self._waits.items() if now - since >= secs} - holders

    def finish(self, task: Task, incarnation: str, finished: Iterable[Finished]) -> None:
        """Ends leases of a task; what is no lease of its own is passed over."""
        with self.changed:
            for each in finished:
                self._adopt(task, incarnation, [each.held])
                if self._owns(task, incarnation, each.held):
                    error = each.error or "it never came to a step" if each.missed else ""
                    grant = self._held[each.held.lease].grant
                    self._close(grant, orderly=not each.broken_off, error=error)
            self.changed.notify_all()

    def find_void(self, task: Task, incarnation: str, held: Sequence[Grant]) -> list[int]:
        """Which of the leases a task says it holds are not its own (any more)."""
        with self.changed:
            self._adopt(task, incarnation, held)
            return [each.lease for each in held if not self._owns(task, incarnation, each)]

    # -- what is asked of it

    @property
    def plan(self) -> InputPlan:
        """What is read.

        Raises:
            NoDataset: Nothing was declared.
        """
        return self._declared()

    @property
    def is_declared(self) -> bool:
        """Whether the job reads leased input at all."""
        return self._plan is not None

    @property
    def holders(self) -> set[tuple[Task, str]]:
        """The tasks that read something, and in which life."""
        with self.changed:
            return {(held.task, held.incarnation) for held in self._held.values()}

    @property
    def set_aside(self) -> tuple[SetAside, ...]:
        """What is not read any more, oldest first."""
        return self._failures.set_aside

    @property
    def bad_records(self) -> int:
        """How many records that are."""
        return self._failures.records

    def check_failures(self) -> None:
        """Raises JobFailed if more records fail than may be set aside."""
        self._failures.check()

    @property
    def is_exhausted(self) -> bool:
        """Whether every shard of every epoch is done or set aside."""
        with self.changed:
            plan = self._declared()
            return int(self._done.min()) >= self._last_epoch(plan)

    @property
    def progress(self) -> LedgerProgress:
        """The ledger in figures."""
        with self.changed:
            plan = self._declared()
            epoch = min(int(self._done.min()), self._last_epoch(plan) - 1)
            return LedgerProgress(
                epoch=epoch,
                epochs=plan.epochs,
                done=int((self._done > epoch).sum()),
                shards=plan.num_shards,
                leased=len(self._held),
                set_aside=self._failures.set_aside,
                records_set_aside=self.bad_records,
                repeated=self._repeated,
            )

    # -- inner workings; the lock is held

    def _declared(self) -> InputPlan:
        if self._plan is None:
            raise NoDataset("the model reads no leased input: call task.shards() to build it")
        return self._plan

    def _check_layout(self, saved: Mapping[str, Any]) -> None:
        plan = self._declared()
        if saved["digest"] != plan.digest:
            raise UsageError(
                f"the checkpoint counts batches of dataset {saved['dataset']!r} as it was then: "
                f"{plan.name!r} has now other records, sizes, seed or files. Give it as it was, or "
                "another --logdir"
            )

    @staticmethod
    def _last_epoch(plan: InputPlan) -> int:
        return WITHOUT_END if plan.epochs is None else plan.epochs

    def _deal(self, task: Task, incarnation: str) -> Grant | None:
        if self._clock() < self._adopt_until:
            return None
        if (choice := self._choose(task)) is None:
            return None
        shard, epoch = choice
        of_epoch, wait = self._fills.pop(shard, (epoch, []))
        missing = self._missing(shard, epoch)
        batches = [batch for batch in missing if of_epoch != epoch or batch not in wait]
        fills = bool(missing) and not batches
        if fills or self._failures.is_troubled(shard):
            # One by one, so that what fails is known, and nothing else is set aside with it; and
            # no more than needed is read again.
            batches = (batches or missing)[:1]
        grant = Grant(next(self._numbers), shard, epoch, tuple(batches), fills)
        self._hold(grant, task, incarnation)
        return grant

    def _choose(self, task: Task) -> tuple[int, int] | None:
        """A shard of the epoch under way, or of the next one: else workers would wait for the last.

        A shard is read in one epoch after the other, so the next one's is one that is done in this.
        What has failed is read alone: a worker that it ends takes no other shard with it.
        """
        plan, reads = self._declared(), self._shards_of(task)
        if any(self._failures.is_troubled(shard) for shard in reads):
            return None
        taken = self._busy.copy()
        if reads:
            taken[self._failures.troubled] = True
        if not self._is_only_reader(task):
            taken[self._failures.kept_from(task)] = True
        for epoch in self._epochs(plan):
            order = self._ordered(plan, epoch)
            free = (self._done[order] == epoch) & ~taken[order]
            if free.any():
                return int(order[int(free.argmax())]), epoch
        return None

    def _is_only_reader(self, task: Task) -> bool:
        """Whether nobody else has asked for a shard lately."""
        since = self._clock() - READER_SECS
        return not any(at > since for other, at in self._asked.items() if other != task)

    def _has_free_shards(self) -> bool:
        return bool((~self._busy & (self._done < self._epochs(self._declared()).stop)).any())

    def _epochs(self, plan: InputPlan) -> range:
        """The epochs that shards are dealt of, the first ones first.

        In sync mode a worker that waited for the end of an epoch would keep the others from it.
        """
        now = int(self._done.min())
        ahead = int(self._done[self._done < WITHOUT_END].max(initial=now)) if self._sync else now
        return range(now, min(ahead + 2, self._last_epoch(plan)))

    def _shards_of(self, task: Task) -> list[int]:
        return [held.grant.shard for held in self._held.values() if held.task == task]

    def _ordered(self, plan: InputPlan, epoch: int) -> Any:
        if self._order[0] != epoch:
            self._order = (epoch, plan.order(epoch))
        return self._order[1]

    def _hold(self, grant: Grant, task: Task, incarnation: str) -> None:
        self._held[grant.lease] = Held(grant, task, incarnation)
        self._busy[grant.shard] = True

    def _owns(self, task: Task, incarnation: str, grant: Grant) -> bool:
        held = self._held.get(grant.lease)
        return held is not None and (held.task, held.incarnation) == (task, incarnation)

    def _adopt(self, task: Task, incarnation: str, grants: Iterable[Grant]) -> None:
        """Takes over leases of an earlier chief, whose parameter servers live."""
        if self._clock() >= self._adopt_until:
            return
        for grant in grants:
            if not 0 <= grant.shard < len(self._busy) or self._busy[grant.shard]:
                continue
            if grant.epoch == self._done[grant.shard]:
                self._hold(grant, task, incarnation)

    def _drop_unknown(self, task: Task, incarnation: str, known: set[int]) -> None:
        """Takes back what a task does not know of: the answer with the lease was lost."""
        unknown = [h for n, h in self._held.items() if h.task == task and n not in known]
        for held in unknown:
            # Of this life, nothing was ever read of it.
            self._close(held.grant, orderly=held.incarnation == incarnation, error="")

    def _close(self, grant: Grant, *, orderly: bool, error: str) -> None:
        reader = self._held.pop(grant.lease).task
        self._closed[grant.lease] = Closed(grant, reader, self._clock(), orderly, error)

    def _is_settled(self, closed: Closed) -> bool:
        """Whether what is missing now will stay so."""
        # A step of the worker ends after its update was counted, or its gradient was pushed.
        is_over = closed.orderly or self._has_waited(closed)
        return is_over and (not self._sync or closed.quiet >= SETTLE_LOOKS)

    def _has_to_fill(self, closed: Closed) -> bool:
        """Whether fewer gradients are left, at the end, than make a step."""
        return self._has_waited(closed) and not self._held and not self._has_free_shards()

    def _has_waited(self, closed: Closed) -> bool:
        return self._clock() - closed.at >= self._settle_secs

    def _settle_one(self, closed: Closed, missing: list[int]) -> None:
        grant, plan = closed.grant, self._declared()
        del self._closed[grant.lease]
        self._busy[grant.shard] = False
        if repeated := self._counts.write_off(grant.shard, grant.epoch):
            self._repeated += repeated
            log.warning("shard %d: %d batches were applied twice", grant.shard, repeated)
        if closed.error and (failed := [b for b in missing if b in (grant.batches or missing)]):
            is_only = self._is_only_reader(closed.reader)
            aside = self._failures.note(
                *(plan, grant.shard, grant.epoch, failed, closed.error, closed.reader, is_only)
            )
            if aside is not None and not aside.for_good:
                self._counts.excuse(grant.shard, grant.epoch, aside.batches)
        elif not missing:
            self._failures.forget(grant.shard)
        self._recount(grant.shard)

    def _missing(self, shard: int, epoch: int) -> list[int]:
        return self._counts.missing(shard, epoch, self._failures.batches_aside(shard))

    def _recount(self, shard: int) -> None:
        """Finds how many epochs of a shard are done."""
        aside = self._failures.batches_aside(shard)
        self._done[shard] = self._counts.epochs_done(shard, aside)
