"""The chief's regular work for the ledger of the input."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from ...model.graph import TrainGraph
from ..membership.membership import Membership
from ..membership.tasks import TaskState
from .ledger import ShardLedger

log = logging.getLogger(__name__)

READ_TIMEOUT_MS = 10_000
# Seconds between two looks, so that gradients on their way have arrived at the next one.
READ_SECS = 0.1


class ShardWatch:
    """Reporter to the ledger: the counts of the parameter servers, and lost tasks.

    Does nothing for a model that reads no leased input.

    Args:
        ledger: The job's ledger.
        membership: The job's tasks.
        built: The chief's graph.
        session: The chief's session over the parameter servers of one generation.
    """

    def __init__(
        self, ledger: ShardLedger, membership: Membership, built: TrainGraph, session: Any
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._counts = built.input
        self._waiting = [built.sync.waiting_batches] if built.sync else []
        self._read_at = 0.0
        self._session = session

    def restore(self, saved: Mapping[str, Any] | None, *, adopt_secs: float = 0.0) -> None:
        """Restores the ledger to the model; to be called before workers are told of it.

        Args:
            saved: The `snapshot` of the restored checkpoint or restore point; None: a fresh start,
                or a model that was found alive.
            adopt_secs: See `ShardLedger.restore`: for a model that was found alive.

        Raises:
            UsageError: The checkpoint counts other batches.
            tf.errors.OpError: A parameter server is gone.
        """
        if self._counts is None:
            return
        self._ledger.declare(self._counts.plan)
        self._ledger.restore(saved, self._read(self._counts.applied), adopt_secs=adopt_secs)
        log.info("input: %s", self._ledger.progress.describe())

    def snapshot(self) -> Mapping[str, Any] | None:
        """Returns the state to keep with a checkpoint or restore point, for JSON; None: nothing."""
        return self._ledger.snapshot() if self._counts is not None else None

    @property
    def is_exhausted(self) -> bool:
        """True if there is nothing left to read, as far as the ledger knows."""
        return self._counts is None or self._ledger.is_exhausted

    @property
    def records_set_aside(self) -> int:
        """Records that are not read any more, because they failed again and again."""
        return self._ledger.progress.records_set_aside if self._counts is not None else 0

    def look(self) -> None:
        """Takes back the shards of lost tasks, and settles ended leases.

        Raises:
            JobFailed: More records fail than may be set aside.
            tf.errors.OpError: A parameter server is gone.
        """
        if self._counts is None:
            return
        self._release_gone()
        ended = self._ledger.ended
        if ended and time.monotonic() - self._read_at >= READ_SECS:
            self._read_at = time.monotonic()
            applied, waiting = self._read([self._counts.applied, self._waiting])
            self._ledger.settle(ended, applied, {int(each) for some in waiting for each in some})
            self._ledger.failures.check()

    def _release_gone(self) -> None:
        lives = {(r.task, r.incarnation): r for r in self._membership.records()}
        for task, incarnation in self._ledger.holders:
            record = lives.get((task, incarnation))
            if record is None or not record.is_alive:
                # A task that was told to stop, or was done, has left gracefully.
                failed = record is None or record.state in (TaskState.LOST, TaskState.FAILED)
                self._ledger.release(task, incarnation, failed=failed)

    def _read(self, tensor: Any) -> Any:
        options = tf.compat.v1.RunOptions(timeout_in_ms=READ_TIMEOUT_MS)
        return self._session.run(tensor, options=options)
