"""Sync mode's tokens, each the right to compute one gradient, and the ledger of gradients.

Both live beside the global step, on its parameter server.

Gradients belong to a *round*, and each round ends with one mean for the optimizer. Rounds are
counted from the global step at which training begins. Both numbers stay equal while every round
is one global step. An optimizer may also leave an update out, or count otherwise: the round
advances nevertheless.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import tensorflow as tf

from ..tensors import Operation, Tensor
from .ledger_watch import LEFT

v1 = tf.compat.v1

# The ledger's columns.
_PUSHED, _APPLIED, _REISSUED, _ROUND = range(4)
# The row of the thread that applies the gradients, and that of the watch over the workers, which
# may be another thread; workers have rows from 0 up.
_CHIEF_ROW, _WATCH_ROW = -1, -2


@dataclass(frozen=True)
class SyncCounters:
    """Counts of the workers' gradients, over the life of the parameter server's state.

    While workers push, a gradient that is under way may be among the dropped ones for a moment.

    Attributes:
        applied: Gradients that are part of a step.
        dropped: Gradients that came too late for theirs.
        reissued: Tokens issued for workers that left, or were silent for a lease.
    """

    applied: int = 0
    dropped: int = 0
    reissued: int = 0

    def __add__(self, other: SyncCounters) -> SyncCounters:
        return SyncCounters(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def since(self, earlier: SyncCounters) -> SyncCounters:
        """Returns the counts since an earlier count; never negative."""
        pairs = zip(astuple(self), astuple(earlier), strict=True)
        return SyncCounters(*(max(0, now - before) for now, before in pairs))


class TokenQueues:
    """Queues of tokens on a device, shared by name. A token is the number of its round."""

    def __init__(self, count: int, device: str, name: str) -> None:
        self._device = device
        with v1.device(device):
            self.queues = [
                v1.FIFOQueue(-1, tf.int64, shapes=(), shared_name=f"{name}/sync_token_q/{number}")
                for number in range(count)
            ]

    def take(self, queue: int) -> Tensor:
        """Waits for a token; int64 scalar."""
        with v1.device(self._device):
            return self.queues[queue].dequeue()

    def give(self, counts: Tensor, number: Tensor) -> Operation:
        """Puts `counts[i]` tokens for a round into queue i; int32 [queues] and int64 scalar."""
        with v1.device(self._device):
            each = zip(self.queues, tf.unstack(counts, len(self.queues)), strict=True)
            return tf.group(*(q.enqueue_many((tf.fill([count], number),)) for q, count in each))

    def clear(self, queue: int) -> Tensor:
        """Takes all tokens of a queue at which no worker waits; int64 of shape [tokens]."""
        with v1.device(self._device):
            return self.queues[queue].dequeue_many(self.queues[queue].size())

    def sizes(self) -> Tensor:
        """Returns the tokens in each queue; int32 of shape [queues]."""
        return self._of_each(lambda queue: queue.size())

    def close(self) -> Operation:
        """Ends every wait for a token, now or later, as the end of the input would."""
        with v1.device(self._device):
            return tf.group(*(each.close(cancel_pending_enqueues=True) for each in self.queues))

    def reopen(self) -> Operation:
        """Replaces queues that an earlier training closed by new ones.

        A closed queue cannot be opened, but it can be forgotten; the next use creates it again.
        """
        return self._of_each(_forget_if_closed).op

    def is_closed(self) -> Tensor:
        """Returns whether any queue is closed; bool scalar."""
        return tf.reduce_any(self._of_each(lambda queue: queue.is_closed()))

    def _of_each(self, read: Callable[[Any], Tensor]) -> Tensor:
        with v1.device(self._device):
            return tf.stack([read(queue) for queue in self.queues])


def _forget_if_closed(queue: Any) -> Tensor:
    def forget() -> Tensor:
        forgotten = tf.raw_ops.DestroyResourceOp(resource=queue.queue_ref, ignore_lookup_error=True)
        with tf.control_dependencies([forgotten]):
            return tf.constant(True)

    return tf.cond(queue.is_closed(), forget, lambda: tf.constant(False))


class GradientLedger:
    """The counts of each worker's pushes, of applied gradients, and of rounds.

    It is a hash table, because that needs no initialization: a worker may push before the chief has
    done anything. Only its owner writes a row, so nothing is lost between reading and writing it.
    """

    def __init__(self, device: str, name: str) -> None:
        self._device = device
        with v1.device(device):
            self._table = tf.raw_ops.MutableHashTableOfTensorsV2(
                key_dtype=tf.int64,
                value_dtype=tf.int64,
                value_shape=[4],
                shared_name=f"{name}/ledger",
            )

    def push(self, worker: int, number: Tensor) -> Operation:
        """Notes a gradient of a worker for a round, an int64 scalar."""
        return self._change(worker, lambda row: [row[_PUSHED] + 1, row[1], row[2], number]).op

    def leave(self, worker: int) -> Operation:
        """Notes that a worker computes no further gradient, until it pushes one."""
        return self._change(worker, lambda row: [row[0], row[1], row[2], LEFT]).op

    def start(self, step: Tensor) -> Operation:
        """Makes rounds count from a global step on, an int64 scalar."""
        return self._change(_CHIEF_ROW, lambda row: [row[0], row[1], row[2], step]).op

    def reissue(self, tokens: Tensor) -> Operation:
        """Notes tokens that were issued again; an int64 scalar."""
        return self._change(_WATCH_ROW, lambda row: row + tf.stack([0, 0, tokens, 0])).op

    def apply(self, gradients: Tensor) -> Tensor:
        """Ends a round of so many gradients, an int64 scalar; gives the number of the next."""
        with v1.device(self._device):
            change = tf.stack([0, gradients, 0, 1])
            return self._change(_CHIEF_ROW, lambda row: row + change)[_ROUND]

    def round(self, step: Tensor) -> Tensor:
        """Returns the round under way, int64 scalar; before the start, the first one, `step`."""
        with v1.device(self._device):
            return self._read(_CHIEF_ROW, [0, 0, 0, step])[_ROUND]

    def rows(self) -> tuple[Tensor, Tensor]:
        """Returns the rows' keys, int64 of shape [rows], and the rows, int64 [rows, 4]."""
        with v1.device(self._device):
            exported = tf.raw_ops.LookupTableExportV2(
                table_handle=self._table, Tkeys=tf.int64, Tvalues=tf.int64
            )
            return exported.keys, exported.values

    def _read(self, row: int, default: Any = (0, 0, 0, 0)) -> Tensor:
        return tf.raw_ops.LookupTableFindV2(
            table_handle=self._table,
            keys=tf.constant(row, tf.int64),
            default_value=tf.convert_to_tensor(default, tf.int64),
        )

    def _change(self, row: int, change: Callable[[Tensor], Any]) -> Tensor:
        """Replaces a row by the result of `change`; returns that once it is written."""
        with v1.device(self._device):
            values = tf.convert_to_tensor(change(self._read(row)), tf.int64)
            written = tf.raw_ops.LookupTableInsertV2(
                table_handle=self._table, keys=tf.constant(row, tf.int64), values=values
            )
            # Tokens of the next round are never given out while the ledger has the one before.
            with tf.control_dependencies([written]):
                return tf.identity(values)


def count_up(rows: Any, waiting: int) -> SyncCounters:
    """Makes counters of a ledger's rows; `waiting` gradients wait for the rest of their step."""
    pushed, applied, reissued = map(int, rows.sum(0)[:_ROUND])
    return SyncCounters(applied, max(0, pushed - applied - waiting), reissued)


def newest_rounds(keys: Any, rows: Any) -> dict[int, tuple[int, int]]:
    """Returns each worker's number of pushes, and the round of the last, by its row."""
    return {
        int(key): (int(row[_PUSHED]), int(row[_ROUND]))
        for key, row in zip(keys, rows, strict=True)
        if key >= 0
    }
