"""Sync mode's tokens, each the right to compute one gradient, and the ledger of gradients.

Both live beside the global step, on its parameter server.

Gradients belong to a *round*, of which each ends with one mean for the optimizer. Rounds are
counted from the global step at which training begins. Both numbers stay equal while every round is
one global step. An optimizer may also leave an update out, or count otherwise: the round advances
all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..tensors import Operation, Tensor
from .ledger_watch import LEFT

v1 = tf.compat.v1

# The ledger's columns.
_PUSHED, _APPLIED, _REISSUED, _ROUND = range(4)
# The row of what applies the gradients; workers have rows from 0 up.
_CHIEF_ROW = -1


@dataclass(frozen=True)
class SyncCounters:
    """What became of the workers' gradients, over the life of the parameter server's state.

    While workers push, a gradient that is under way may be among the dropped ones for a moment.

    Attributes:
        applied: Gradients that are part of a step.
        dropped: Gradients that came too late for theirs.
        reissued: Tokens issued for workers that left, or were not heard of for a lease.
    """

    applied: int = 0
    dropped: int = 0
    reissued: int = 0

    def __add__(self, other: SyncCounters) -> SyncCounters:
        return SyncCounters(
            self.applied + other.applied,
            self.dropped + other.dropped,
            self.reissued + other.reissued,
        )

    def since(self, earlier: SyncCounters) -> SyncCounters:
        """What came after an earlier count; never less than nothing."""
        return SyncCounters(
            max(0, self.applied - earlier.applied),
            max(0, self.dropped - earlier.dropped),
            max(0, self.reissued - earlier.reissued),
        )


class TokenQueues:
    """Queues of tokens, of which each holds the round that it is good for.

    Args:
        count: How many queues: one for all workers, or one for each.
        device: Where they live.
        name: What their shared names begin with.
    """

    def __init__(self, count: int, device: str, name: str) -> None:
        self._device = device
        with v1.device(device):
            self.queues = [
                v1.FIFOQueue(
                    -1,
                    tf.int64,
                    shapes=(),
                    name="sync_token_q",
                    shared_name=f"{name}/sync_token_q/{number}",
                )
                for number in range(count)
            ]

    def take(self, queue: int) -> Tensor:
        """Waits for a token; int64 scalar."""
        with v1.device(self._device):
            return self.queues[queue].dequeue()

    def give(self, counts: Tensor, number: Tensor) -> Operation:
        """Puts `counts[i]` tokens for a round into queue i; int32 [queues] and int64 scalar."""
        with v1.device(self._device):
            # A token is the number of its round: late gradients are found by it.
            each = tf.unstack(counts, len(self.queues))
            return tf.group(
                *(
                    queue.enqueue_many((tf.fill([count], number),))
                    for queue, count in zip(self.queues, each, strict=True)
                )
            )

    def clear(self, queue: int) -> Tensor:
        """Takes all tokens of a queue at which no worker waits; int64 of shape [tokens]."""
        with v1.device(self._device):
            return self.queues[queue].dequeue_many(self.queues[queue].size())

    def sizes(self) -> Tensor:
        """Tokens in each queue; int32 of shape [queues]."""
        with v1.device(self._device):
            return tf.stack([queue.size() for queue in self.queues])

    def close(self) -> Operation:
        """Ends every wait for a token, now or later, as the end of the input would."""
        with v1.device(self._device):
            return tf.group(*(each.close(cancel_pending_enqueues=True) for each in self.queues))

    def reopen(self) -> Operation:
        """Puts new queues in the place of those that an earlier training closed.

        A closed queue cannot be opened, but it can be forgotten; the next use creates it again.
        """
        with v1.device(self._device):
            return tf.group(*(_forget_if_closed(each) for each in self.queues))

    def is_closed(self) -> Tensor:
        """Whether any queue is closed; bool scalar."""
        with v1.device(self._device):
            return tf.reduce_any(tf.stack([queue.is_closed() for queue in self.queues]))


def _forget_if_closed(queue: Any) -> Operation:
    def forget() -> Tensor:
        forgotten = tf.raw_ops.DestroyResourceOp(resource=queue.queue_ref, ignore_lookup_error=True)
        with tf.control_dependencies([forgotten]):
            return tf.constant(True)

    return tf.cond(queue.is_closed(), forget, lambda: tf.constant(False)).op


class GradientLedger:
    """Counts what each worker pushed, what was applied, and rounds.

    It is a hash table, since that needs no initialization: a worker may push before the chief has
    done anything. Only its owner writes a row, so nothing is lost between reading and writing it.

    Args:
        device: Where it lives.
        name: What its shared name begins with.
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
        with v1.device(self._device):
            row = self._find(worker)
            return self._set(worker, tf.stack([row[0] + 1, row[1], row[2], number]))

    def leave(self, worker: int) -> Operation:
        """Notes that a worker computes no further gradient, until it pushes one."""
        return self._set_round(worker, tf.constant(LEFT, tf.int64))

    def start(self, step: Tensor) -> Operation:
        """Has rounds counted from a global step on, an int64 scalar."""
        return self._set_round(_CHIEF_ROW, step)

    def round(self, step: Tensor) -> Tensor:
        """The round under way, int64 scalar; before the start, `step`, where it will begin."""
        with v1.device(self._device):
            default = tf.stack([*tf.unstack(tf.zeros([3], tf.int64)), step])
            return self._find(_CHIEF_ROW, default)[_ROUND]

    def apply(self, gradients: Tensor) -> Tensor:
        """Ends a round of so many gradients, an int64 scalar; gives the number of the next."""
        with v1.device(self._device):
            # The number is returned after the row is written: tokens of the next round are never
            # given out while the ledger still has the one before.
            row = self._find(_CHIEF_ROW) + tf.stack([0, gradients, 0, 1])
            with tf.control_dependencies([self._set(_CHIEF_ROW, row)]):
                return tf.identity(row[_ROUND])

    def reissue(self, row: int, tokens: Tensor) -> Operation:
        """Notes tokens that were issued again; a scalar of an integer type."""
        with v1.device(self._device):
            amount = tf.one_hot(_REISSUED, 4, dtype=tf.int64) * tf.cast(tokens, tf.int64)
            return self._set(row, self._find(row) + amount)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Everything: the rows' keys, int64 of shape [rows], and the rows, int64 [rows, 4]."""
        with v1.device(self._device):
            exported = tf.raw_ops.LookupTableExportV2(
                table_handle=self._table, Tkeys=tf.int64, Tvalues=tf.int64
            )
            return exported.keys, exported.values

    def _set_round(self, row: int, number: Tensor) -> Operation:
        with v1.device(self._device):
            return self._set(row, tf.concat([self._find(row)[:_ROUND], [number]], 0))

    def _find(self, row: int, default: Tensor | None = None) -> Tensor:
        return tf.raw_ops.LookupTableFindV2(
            table_handle=self._table,
            keys=tf.constant(row, tf.int64),
            default_value=tf.zeros([4], tf.int64) if default is None else default,
        )

    def _set(self, row: int, values: Tensor) -> Operation:
        return tf.raw_ops.LookupTableInsertV2(
            table_handle=self._table, keys=tf.constant(row, tf.int64), values=values
        )


def count_up(rows: Any, waiting: int) -> SyncCounters:
    """Makes the counters of a ledger's rows.

    Args:
        rows: int64 array of shape [rows, 4].
        waiting: Gradients that wait for the rest of their step.
    """
    pushed, applied, reissued = (
        int(rows[:, each].sum()) for each in (_PUSHED, _APPLIED, _REISSUED)
    )
    return SyncCounters(applied, max(0, pushed - applied - waiting), reissued)


def newest_rounds(keys: Any, rows: Any) -> dict[int, tuple[int, int]]:
    """What each worker pushed: how many gradients, and for which round the last, by its row."""
    return {
        int(key): (int(row[_PUSHED]), int(row[_ROUND]))
        for key, row in zip(keys, rows, strict=True)
        if key >= 0
    }
