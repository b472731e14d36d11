"""The ledger of input shards: their readers, and the shards that have to be read again.

The ledger does not record *counted* batches. With each update, the parameter servers count how
often a batch has been applied (`model.input.applied_counts`), so the counts are part of the model.
They are saved, mirrored and restored with it: a batch has been read exactly when the model has seen
it. The ledger deals the batches that are missing there. Its own memory may be lost: the present
readers, and the numbers of failures.

Pure bookkeeping behind one lock: no network, no TensorFlow, and the clock is a parameter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ...cluster.spec import Task
from ...errors import UsageError
from ...model.input.shard_plan import InputPlan
from ..changes import Changes
from .dealing import ShardDealer
from .failures import Failures, ShardFailure
from .held_leases import HeldLeases
from .leases import Closed, ClosedLeases, Finished, Grant, LedgerProgress, NoDataset, Readers
from .shard_table import ShardTable

__all__ = ["Finished", "Grant", "LedgerProgress", "NoDataset", "ShardLedger"]

log = logging.getLogger(__name__)

# How long after its end a lease's last updates may take to be counted.
SETTLE_SECS = 2.0


class ShardLedger:
    """Dealer of the shards of one dataset.

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
        sync: True if gradients are aggregated: then a waiting worker keeps the others from
            continuing.
        failures: Counts failures of the input; None: any number of records may be set aside.
        settle_secs: Seconds after a lease's end for which its updates may still come.
        clock: Seconds from any origin.
        first_lease: Number of the first lease.

    Attributes:
        failures: Failures of the input, with the batches set aside.
        changed: See above; holds the lock of this object.
    """

    def __init__(
        self,
        *,
        sync: bool = False,
        failures: Failures | None = None,
        settle_secs: float = SETTLE_SECS,
        clock: Callable[[], float] = time.monotonic,
        first_lease: int | None = None,
    ) -> None:
        self._sync = sync
        self._table: ShardTable | None = None
        self.failures = failures or Failures()
        self._held = HeldLeases(clock)
        self._closed = ClosedLeases(sync=sync, settle_secs=settle_secs, clock=clock)
        self._readers = Readers(clock)
        # A new chief must not take a lease of the former one for one of its own.
        first = time.time_ns() if first_lease is None else first_lease
        self._dealer = ShardDealer(self._held, self.failures, self._readers, first)
        self._repeated = 0
        self.changed = Changes()

    # -- for the chief

    def declare(self, plan: InputPlan) -> None:
        """Declares the input, of which nothing was applied so far. A second call changes nothing.

        Raises:
            UsageError: Another input was declared before.
        """
        with self.changed:
            if self._table is None:
                self._table = ShardTable(plan, self.failures, sync=self._sync)
                return
            before = self._table.plan
            if (before.digest, before.epochs) != (plan.digest, plan.epochs):
                raise UsageError(
                    f"dataset {plan.name!r} differs from the dataset declared before "
                    f"({before.name!r}): all tasks have to declare the same"
                )

    def restore(
        self, saved: Mapping[str, Any] | None, applied: Any, *, adopt_secs: float = 0.0
    ) -> None:
        """Takes over the counts of a model that was restored, initialized, or found alive.

        All leases are void, unless their holders come forward within `adopt_secs`.

        Args:
            saved: The `snapshot` of that point; None: there is none.
            applied: How often each batch has been applied in that model; shape [batches].
            adopt_secs: Seconds for which nothing is dealt and running leases are adopted: for a new
                chief that found the model alive, while workers continue to train.

        Raises:
            UsageError: The model was trained on the same number of other batches, or more records
                are set aside than allowed.
        """
        with self.changed:
            self._declared().restore(saved, applied)
            self._held.void(adopt_secs)
            self._closed.clear()
            self._dealer.clear()
            self._readers.end_waits()
            self.changed.notify_all()

    def snapshot(self) -> dict[str, Any]:
        """Returns the state beside a checkpoint as a JSON-able dict; the model has the counts."""
        with self.changed:
            return self._declared().snapshot()

    def release(self, task: Task, incarnation: str | None, *, failed: bool) -> None:
        """Takes back the leases of a task that is lost or has left.

        Args:
            task: The task.
            incarnation: Its incarnation; None: any.
            failed: True if the input may have ended the task.
        """
        with self.changed:
            self._readers.remove(task)
            for held in self._held.of(task):
                if incarnation in (None, held.incarnation):
                    self._readers.end_wait(task)
                    error = f"{task} was lost while reading it" if failed else ""
                    self._close(held.grant, orderly=False, error=error)
            self.changed.notify_all()

    @property
    def ended(self) -> frozenset[int]:
        """Leases that have ended and are to be compared with counts that are read from now on."""
        with self.changed:
            return self._closed.numbers

    def settle(self, ended: Collection[int], applied: Any, waiting: Collection[int] = ()) -> None:
        """Compares ended leases with the applied batches: they are done, or dealt again.

        Args:
            ended: The value of `ended` before the counts were read: older counts would lack the
                last steps of a lease.
            applied: How often each batch has been applied; shape [batches].
            waiting: Sync mode: batches whose gradients wait for the rest of their step. Read with
                `applied`; it need not be of the very same moment.
        """
        with self.changed:
            table = self._declared()
            table.take(applied)
            for closed in self._closed.of(ended):
                shard = closed.grant.shard
                missing = table.missing(shard, closed.grant.epoch)
                first = int(table.plan.first_batches[shard])
                wait = [batch for batch in missing if first + batch in waiting]
                closed.quiet = 0 if wait else closed.quiet + 1
                is_last = wait and not self._held and self._closed.has_waited(closed)
                if not missing or self._closed.is_settled(closed):
                    self._settle_one(closed, missing)
                elif is_last and not table.has_free:
                    # At the end, fewer gradients are left than make a step.
                    self._settle_one(closed, missing)
                    self._dealer.note_waiting(shard, closed.grant.epoch, wait)
            self.changed.notify_all()

    # -- for workers

    def lease(
        self,
        task: Task,
        incarnation: str,
        *,
        held: Sequence[Grant] = (),
    ) -> Grant | None:
        """Leases a shard to a task; None if there is none now, or none any more.

        Args:
            task: The asking task.
            incarnation: Its incarnation.
            held: Its present leases.

        Raises:
            NoDataset: No input was declared.
        """
        with self.changed:
            table = self._declared()
            self._adopt(task, incarnation, held)
            known = {each.lease for each in held}
            for each in self._held.of(task):
                if each.grant.lease not in known:  # The answer with it was lost.
                    # In this incarnation, nothing was ever read of it.
                    self._close(each.grant, orderly=each.incarnation == incarnation)
            if (grant := self._dealer.deal(table, task)) is not None:
                self._hold(grant, task, incarnation)
            self._readers.note_request(task, is_granted=grant is not None)
            return grant

    def starved(self, secs: float) -> set[Task]:
        """Returns tasks that read nothing, and have waited for a shard for so many seconds.

        In sync mode, no step should wait for their gradients.
        """
        with self.changed:
            return self._readers.waiting(secs) - {task for task, _ in self._held.holders}

    def finish(self, task: Task, incarnation: str, finished: Iterable[Finished]) -> None:
        """Ends leases of a task; leases of other tasks are passed over."""
        with self.changed:
            for each in finished:
                self._adopt(task, incarnation, [each.held])
                if self._held.owns(task, incarnation, each.held):
                    error = each.error or "it never came to a step" if each.missed else ""
                    self._close(each.held, orderly=not each.broken_off, error=error)
            self.changed.notify_all()

    def find_void(self, task: Task, incarnation: str, held: Sequence[Grant]) -> list[int]:
        """Returns those of a task's claimed leases that are not its own (any more)."""
        with self.changed:
            self._adopt(task, incarnation, held)
            return [each.lease for each in held if not self._held.owns(task, incarnation, each)]

    # -- state

    @property
    def plan(self) -> InputPlan:
        """The plan of the input.

        Raises:
            NoDataset: No input was declared.
        """
        return self._declared().plan

    @property
    def holders(self) -> set[tuple[Task, str]]:
        """The tasks with leases, and their incarnations."""
        with self.changed:
            return self._held.holders

    @property
    def is_exhausted(self) -> bool:
        """True if every shard of every epoch is done or set aside."""
        with self.changed:
            return self._declared().is_exhausted

    @property
    def progress(self) -> LedgerProgress:
        """The ledger in figures."""
        with self.changed:
            table = self._declared()
            return LedgerProgress(
                epoch=table.epoch,
                epochs=table.plan.epochs,
                done=int((table.done > table.epoch).sum()),
                shards=table.plan.num_shards,
                leased=len(self._held),
                set_aside=self.failures.set_aside,
                records_set_aside=self.failures.records,
                repeated=self._repeated,
            )

    # -- inner workings; the lock is held

    def _declared(self) -> ShardTable:
        if self._table is None:
            raise NoDataset("the model reads no leased input: call task.shards() to build it")
        return self._table

    def _hold(self, grant: Grant, task: Task, incarnation: str) -> None:
        self._held.add(grant, task, incarnation)
        self._declared().busy[grant.shard] = True

    def _adopt(self, task: Task, incarnation: str, grants: Iterable[Grant]) -> None:
        """Takes over leases of an earlier chief, whose parameter servers live."""
        table = self._declared()
        for grant in grants if self._held.is_adopting else ():
            if table.is_due(grant.shard, grant.epoch):
                self._hold(grant, task, incarnation)

    def _close(self, grant: Grant, *, orderly: bool, error: str = "") -> None:
        held = self._held.take(grant.lease)
        self._closed.add(held.grant, held.task, orderly=orderly, error=error)

    def _settle_one(self, closed: Closed, missing: list[int]) -> None:
        grant, table = closed.grant, self._declared()
        self._closed.remove(closed)
        if repeated := table.release(grant.shard, grant.epoch):
            self._repeated += repeated
            log.warning("shard %d: %d batches were applied twice", grant.shard, repeated)
        if closed.error and (failed := [b for b in missing if b in (grant.batches or missing)]):
            failure = ShardFailure(
                grant.shard, grant.epoch, tuple(failed), closed.error, closed.reader
            )
            is_only = self._readers.is_only(closed.reader)
            aside = self.failures.note(table.plan, failure, is_only_reader=is_only)
            if aside is not None:
                table.excuse(aside)
        elif not missing:
            self.failures.forget(grant.shard)
        table.recount(grant.shard)
