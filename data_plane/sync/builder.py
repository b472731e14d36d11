"""Sync mode's part of the graph: what workers push, what the chief applies, and the tokens.

One rule is the service's own: *every* gradient is computed on a token, the first one included. So a
worker may join at any time without pushing a gradient that nobody waits for, and the token of one
that leaves can be issued again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..options import BUCKET_BYTES
from ..tensors import GradientsAndVariables, Operation, Tensor, Variable
from .accumulators import GradientAccumulators, Tally
from .batch_tally import BatchCounts, BatchTally
from .sparse_mean import Leftover
from .tokens import GradientLedger, TokenQueues

v1 = tf.compat.v1

_NAME = "paramserve/sync"


@dataclass(frozen=True)
class SyncOps:
    """Operations of sync mode.

    Attributes:
        round: int64 scalar: what gradients are for now, see `data_plane.sync.tokens`.
        global_step: int64 scalar.
        train_op: Worker: pushes its gradients, then waits for its next token.
        take_token: Worker: waits for its first token.
        token_step: Worker: int64 scalar, the global step when `train_op` has its token.
        apply_step: Chief: waits for enough gradients, applies their mean, issues tokens.
        start: Chief: has rounds begin at the restored global step.
        leftovers: Chief: gradients that an earlier life of the job left behind.
        clear_tokens: Chief: drops tokens that an earlier life of the job left behind; by queue.
        counts: int32 placeholder of shape [queues], for the next two.
        issue_tokens: Chief: issues `counts` tokens for the round under way.
        deal_tokens: Chief: has each step issue `counts` tokens from now on.
        waiting: int32 scalar: gradients that wait for the rest of their step.
        waiting_batches: int64 of shape [k]: the batches that these are of, if the input is read in
            shards.
        queue_sizes: int32 of shape [queues]: tokens that nobody has taken.
        ledger: What every worker pushed, see `tokens.GradientLedger.rows`.
        queues: Token queues: one for all workers; or one for each that was planned, and one for
            all that are more.
        tokens_per_step: Tokens in the job, so gradients computed for one global step.
        replicas: int32 scalar: gradients that make the global step under way.
        count_replicas: Chief: has the next step be made of as many gradients as `counts` are in
            all; to be run while no step is under way. None: the number stays as it is.
    """

    round: Tensor
    global_step: Tensor
    train_op: Operation
    take_token: Operation
    token_step: Tensor
    apply_step: Operation
    start: Operation
    leftovers: Sequence[Leftover]
    clear_tokens: Sequence[Operation]
    counts: Tensor
    issue_tokens: Operation
    deal_tokens: Operation
    waiting: Tensor
    waiting_batches: Tensor
    queue_sizes: Tensor
    ledger: tuple[Tensor, Tensor]
    queues: int
    tokens_per_step: int
    replicas: Tensor
    count_replicas: Operation | None


def synchronize(
    optimizer: Any,
    gradients: GradientsAndVariables,
    *,
    global_step: Variable,
    examples: Variable,
    examples_in_step: Tensor,
    replicas_to_aggregate: int,
    num_workers: int,
    worker_index: int = 0,
    bucket_bytes: int = BUCKET_BYTES,
    input_counts: BatchCounts | None = None,
) -> SyncOps:
    """Adds synchronous aggregation of `gradients` to the current graph.

    When a gradient of every planned worker is to be aggregated, each has a token of its own; so a
    step is made of one gradient of each, and not of two of a fast one. Otherwise tokens are for
    whoever comes first.

    Args:
        optimizer: The `tf.compat.v1.train.Optimizer` that applies the mean gradients.
        gradients: `(gradient, variable)` pairs of this worker.
        global_step: int64 scalar variable, incremented once for each aggregated step.
        examples: int64 scalar variable, to which applied examples are added.
        examples_in_step: Scalar; examples behind this worker's gradients.
        replicas_to_aggregate: Gradients averaged into one step; 0: one of each worker for which a
            token was dealt with the step before.
        num_workers: Workers planned; more than `replicas_to_aggregate` are backup workers.
        worker_index: Which of the workers this is, if it is one.
        bucket_bytes: Bytes up to which gradients are pushed together.
        input_counts: Counts the batches that are applied, if the input is read in shards.
    """
    parts = _Parts(gradients, global_step, examples, input_counts, bucket_bytes)
    follows_workers = replicas_to_aggregate == 0
    replicas_to_aggregate = replicas_to_aggregate or num_workers
    has_own_queues = replicas_to_aggregate == num_workers
    tokens = TokenQueues(num_workers + 1 if has_own_queues else 1, global_step.device, _NAME)
    queues = len(tokens.queues)
    held = _local_variable("token_step")
    number = tf.identity(held.read_value())
    with tf.control_dependencies(parts.push(number, examples_in_step, worker_index)):
        token = tokens.take(min(worker_index, queues - 1))
    with v1.device(global_step.device), tf.control_dependencies([token]):
        # Both cross as one tensor.
        token = tf.stack([token, global_step.read_value()])
    first_token = tokens.take(min(worker_index, queues - 1))
    tokens_per_step = max(num_workers, replicas_to_aggregate)
    with v1.device(global_step.device):
        shares = v1.Variable(
            [1] * num_workers + [0] if has_own_queues else [tokens_per_step],
            dtype=tf.int32,
            trainable=False,
            collections=[],
            name="token_shares",
        )
        counts = v1.placeholder(tf.int32, [queues], name="token_counts")
        round_now = parts.round()
        issue_tokens = tokens.give(counts, round_now)
        deal_tokens = shares.assign(counts).op
        replicas = tf.constant(replicas_to_aggregate, tf.int32)
        count_replicas = None
        if follows_workers:
            dealt = v1.Variable(
                replicas_to_aggregate, trainable=False, collections=[], name="tokens_dealt"
            )
            replicas, count_replicas = dealt.read_value(), dealt.assign(tf.reduce_sum(counts)).op
        updates, next_round = parts.apply(
            optimizer, replicas if follows_workers else replicas_to_aggregate
        )
        with tf.control_dependencies(updates):
            # The same reading for both: a step waits for as many gradients as it has tokens.
            now = shares.read_value()
            given = tokens.give(now, next_round)
        if follows_workers:
            with tf.control_dependencies([now]):
                given = tf.group(given, dealt.assign(tf.reduce_sum(now)).op)
    return SyncOps(
        round=round_now,
        global_step=global_step.read_value(),
        train_op=held.assign(token[0]).op,
        take_token=held.assign(first_token).op,
        token_step=tf.identity(token[1], name="token_step_after"),
        apply_step=given,
        start=tf.group(*parts.start()),
        leftovers=parts.leftovers(),
        clear_tokens=[tokens.clear(queue).op for queue in range(queues)],
        counts=counts,
        issue_tokens=issue_tokens,
        deal_tokens=deal_tokens,
        waiting=parts.tally.leftover().count,
        waiting_batches=parts.waiting_batches(round_now),
        queue_sizes=tokens.sizes(),
        ledger=parts.ledger.rows(),
        queues=queues,
        tokens_per_step=tokens_per_step,
        replicas=replicas,
        count_replicas=count_replicas,
    )


class _Parts:
    """The accumulators of a model's gradients, and of the figures that go with them."""

    def __init__(
        self,
        gradients: GradientsAndVariables,
        global_step: Variable,
        examples: Variable,
        input_counts: BatchCounts | None,
        bucket_bytes: int,
    ) -> None:
        self._device = global_step.device
        self._global_step, self._examples, self._input = global_step, examples, input_counts
        self._gradients = GradientAccumulators(gradients, bucket_bytes=bucket_bytes, name=_NAME)
        self.tally = Tally(2, self._device, _NAME)
        self.ledger = GradientLedger(self._device, _NAME)
        self._batches = [BatchTally(input_counts, self._device, _NAME)] if input_counts else []

    def round(self) -> Tensor:
        return self.ledger.round(self._global_step.read_value())

    def push(self, number: Tensor, examples: Tensor, worker: int) -> list[Operation]:
        # Not before there are gradients: a worker that dies while it computes them counts nothing.
        with tf.control_dependencies(self._gradients.sources):
            sent = tf.identity(number)
        if self._input is not None:
            examples = self._input.of_those_that_count(examples)
        # Round and examples cross as one tensor to the server that needs both.
        header = tf.stack([sent, examples])
        with v1.device(self._device):
            number = header[0]
            figures = tf.stack([tf.constant(1, tf.int64), header[1]])
        return [
            self.ledger.push(worker, number),
            self.tally.push(figures, number),
            *(each.push(number) for each in self._batches),
            *self._gradients.push(sent, {self._device: number}),
        ]

    def apply(self, optimizer: Any, replicas: int | Tensor) -> tuple[list[Operation], Tensor]:
        """The updates, and the number of the round that comes after them."""
        sums = self.tally.take(replicas)
        update = optimizer.apply_gradients(self._gradients.take(replicas), self._global_step)
        with v1.device(self._examples.device):
            counted = self._examples.assign_add(sums[1], read_value=False)
        batches = [each.apply(replicas) for each in self._batches]
        return [update, counted, *batches], self.ledger.apply(sums[0])

    def start(self) -> list[Operation]:
        step = self._global_step.read_value()
        batches = [each.start(step) for each in self._batches]
        begun = [self.ledger.start(step), self.tally.start(step)]
        return [*begun, *batches, *self._gradients.start(step)]

    def waiting_batches(self, number: Tensor) -> Tensor:
        nothing = tf.zeros([0], tf.int64)
        return tf.concat([nothing, *(each.waiting(number) for each in self._batches)], 0)

    def leftovers(self) -> list[Leftover]:
        batches = [each.leftover() for each in self._batches]
        return [self.tally.leftover(), *batches, *self._gradients.leftovers()]


def _local_variable(name: str) -> Variable:
    return v1.get_variable(
        name,
        shape=(),
        dtype=tf.int64,
        initializer=v1.zeros_initializer(),
        trainable=False,
        collections=[v1.GraphKeys.LOCAL_VARIABLES],
    )
