"""The graph of synchronous steps: what workers push, what the chief applies, and the tokens.

`SyncGraph` has what the service and `SyncReplicasOptimizer` have in common; `synchronize` makes the
service's operations of it. One rule is the service's own: *every* gradient is computed on a token,
the first one included. So a worker may join at any time without pushing a gradient that no step
waits for, and the token of one that leaves can be issued again.
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
class ChiefOps:
    """What the chief runs, and looks at.

    Attributes:
        apply_step: Waits for enough gradients, applies their mean, issues tokens.
        counts: int32 placeholder of shape [queues], for the next two.
        issue_tokens: Issues `counts` tokens for the round under way.
        deal_tokens: Has each step issue `counts` tokens from now on.
        round: int64 scalar: what gradients are for now, see `data_plane.sync.tokens`.
        waiting: int32 scalar: gradients that wait for the rest of their step.
        queue_sizes: int32 of shape [queues]: tokens that no worker has taken.
        ledger: What every worker pushed, see `tokens.GradientLedger.rows`.
        leftovers: Gradients that an earlier life of the job left behind, by accumulator.
    """

    apply_step: Operation
    counts: Tensor
    issue_tokens: Operation
    deal_tokens: Operation
    round: Tensor
    waiting: Tensor
    queue_sizes: Tensor
    ledger: tuple[Tensor, Tensor]
    leftovers: Sequence[Leftover]


@dataclass(frozen=True)
class SyncOps(ChiefOps):
    """Operations of the service's sync mode.

    Attributes:
        global_step: int64 scalar.
        train_op: Worker: pushes its gradients, then waits for its next token.
        take_token: Worker: waits for its first token.
        token_step: Worker: int64 scalar, the global step when `train_op` has its token.
        start: Chief: has rounds begin at the restored global step.
        clear_tokens: Chief: drops tokens that an earlier life of the job left behind; by queue.
        waiting_batches: int64 of shape [k]: the batches of gradients that wait, if the input is
            read in shards.
        queues: Token queues: one for all workers; or one for each that was planned, and one for
            all that are more.
        tokens_per_step: Tokens in the job, so gradients computed for one global step.
        replicas: int32 scalar: gradients that make the global step under way.
        count_replicas: Chief: has the next step be made of as many gradients as `counts` are in
            all; to be run while no step is under way. None: the number stays as it is.
    """

    global_step: Tensor
    train_op: Operation
    take_token: Operation
    token_step: Tensor
    start: Operation
    clear_tokens: Sequence[Operation]
    waiting_batches: Tensor
    queues: int
    tokens_per_step: int
    replicas: Tensor
    count_replicas: Operation | None


class SyncGraph:
    """A model's accumulators, ledger and tokens, with the operations that every use of them has.

    Args:
        gradients: `(gradient, variable)` pairs of this worker.
        global_step: Integer scalar variable, or a tensor that reads it.
        name: What shared names begin with; unique in the job.
        shares: Tokens that each queue gets with a step.
        can_deal: Whether shares may change later; otherwise they need no variable.
        figures: Figures that workers push with their gradients.
        input_counts: Counts the batches that are applied, if the input is read in shards.
        bucket_bytes: Bytes up to which gradients are pushed together.
    """

    def __init__(
        self,
        gradients: GradientsAndVariables,
        global_step: Any,
        *,
        name: str,
        shares: Sequence[int],
        can_deal: bool = True,
        figures: int = 0,
        input_counts: BatchCounts | None = None,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self._global_step, self._device = global_step, global_step.device
        self._can_deal = can_deal
        self.gradients = GradientAccumulators(gradients, bucket_bytes=bucket_bytes, name=name)
        # The first figure is always 1: the sum tells how many gradients a step is made of.
        self._tally = Tally(1 + figures, self._device, name)
        self.ledger = GradientLedger(self._device, name)
        self._batches = [BatchTally(input_counts, self._device, name)] if input_counts else []
        self.tokens = TokenQueues(len(shares), self._device, name)
        self.queues = len(shares)
        with v1.device(self._device):
            # A variable where there is no need would shift where later ones are placed.
            self.shares = _variable_of(shares) if can_deal else tf.constant(shares)
            self.counts = v1.placeholder(tf.int32, [self.queues], name="token_counts")

    def step(self) -> Tensor:
        """The global step, an int64 scalar."""
        step = self._global_step
        return tf.cast(step.read_value() if isinstance(step, tf.Variable) else step, tf.int64)

    def round(self) -> Tensor:
        """The round under way, an int64 scalar."""
        return self.ledger.round(self.step())

    def push(self, number: Tensor, worker: int, figures: Sequence[Tensor] = ()) -> list[Operation]:
        """Hands over a worker's gradients.

        Args:
            number: int64 scalar on the worker: the round that they are for.
            worker: The worker's row in the ledger.
            figures: int64 scalars on the worker, that are added up over a step.
        """
        # Round and figures cross as one tensor to the server that needs them all.
        header = tf.stack([number, *figures])
        with v1.device(self._device):
            arrived = header[0]
            rest = [header[1 + place] for place in range(len(figures))]
            tallied = tf.stack([tf.constant(1, tf.int64), *rest])
        return [
            self.ledger.push(worker, arrived),
            self._tally.push(tallied, arrived),
            *(each.push(arrived) for each in self._batches),
            *self.gradients.push(number, {self._device: arrived}),
        ]

    def take(self, replicas: int | Tensor) -> tuple[GradientsAndVariables, Tensor, Tensor]:
        """Waits for `replicas` gradients of each variable.

        Returns:
            The means with their variables; the sums of 1 and of the figures, int64 of shape
            [1 + figures]; and the number of the round that comes next.
        """
        sums = self._tally.take(replicas)
        return self.gradients.take(replicas), sums, self.ledger.apply(sums[0])

    def count_batches(self, replicas: int | Tensor) -> list[Operation]:
        """Counts the batches of a step's gradients."""
        return [each.apply(replicas) for each in self._batches]

    def issue_shares(
        self, updates: Sequence[Operation], next_round: Tensor
    ) -> tuple[Operation, Tensor]:
        """After `updates`, gives each queue its share; with it the shares that were read."""
        with tf.control_dependencies(updates):
            shares = self.shares.read_value() if self._can_deal else self.shares
            return self.tokens.give(shares, next_round), shares

    def start(self, step: Tensor) -> list[Operation]:
        """Has rounds begin at a global step, and gradients from before it dropped."""
        batches = [each.start(step) for each in self._batches]
        begun = [self.ledger.start(step), self._tally.start(step)]
        return [*begun, *batches, *self.gradients.start(step)]

    def waiting_batches(self, number: Tensor) -> Tensor:
        """The batches of gradients that wait, for this round or a later one."""
        nothing = tf.zeros([0], tf.int64)
        return tf.concat([nothing, *(each.waiting(number) for each in self._batches)], 0)

    def chief_ops(self, apply_step: Operation, reissue_row: int | None = None) -> ChiefOps:
        """Makes the chief's operations.

        Args:
            apply_step: The step.
            reissue_row: The row in the ledger that counts issued tokens; None: they are not
                counted there.
        """
        with v1.device(self._device):
            number = self.round()
            issue = self.tokens.give(self.counts, number)
            if reissue_row is not None:
                noted = self.ledger.reissue(reissue_row, tf.reduce_sum(self.counts))
                issue = tf.group(issue, noted)
            deal = self.shares.assign(self.counts).op if self._can_deal else tf.no_op()
        batches = [each.leftover() for each in self._batches]
        leftovers = [self._tally.leftover(), *batches, *self.gradients.leftovers()]
        return ChiefOps(
            apply_step=apply_step,
            counts=self.counts,
            issue_tokens=issue,
            deal_tokens=deal,
            round=number,
            waiting=leftovers[0].count,
            queue_sizes=self.tokens.sizes(),
            ledger=self.ledger.rows(),
            leftovers=leftovers,
        )


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
    follows_workers = replicas_to_aggregate == 0
    replicas_to_aggregate = replicas_to_aggregate or num_workers
    has_own_queues = replicas_to_aggregate == num_workers
    tokens_per_step = max(num_workers, replicas_to_aggregate)
    held = _local_variable("token_step")
    graph = SyncGraph(
        gradients,
        global_step,
        name=_NAME,
        shares=[1] * num_workers + [0] if has_own_queues else [tokens_per_step],
        figures=1,
        input_counts=input_counts,
        bucket_bytes=bucket_bytes,
    )
    queue = min(worker_index, graph.queues - 1)
    # Not before there are gradients: a worker that dies while it computes them counts nothing.
    number = tf.identity(held.read_value())
    with tf.control_dependencies(graph.gradients.sources):
        sent = tf.identity(number)
    if input_counts is not None:
        examples_in_step = input_counts.of_those_that_count(examples_in_step)
    with tf.control_dependencies(graph.push(sent, worker_index, [examples_in_step])):
        token = graph.tokens.take(queue)
    with v1.device(global_step.device), tf.control_dependencies([token]):
        # Both cross as one tensor.
        token = tf.stack([token, global_step.read_value()])
    with v1.device(global_step.device):
        replicas, count_replicas = tf.constant(replicas_to_aggregate, tf.int32), None
        if follows_workers:
            dealt = v1.Variable(
                replicas_to_aggregate, trainable=False, collections=[], name="tokens_dealt"
            )
            replicas = dealt.read_value()
            count_replicas = dealt.assign(tf.reduce_sum(graph.counts)).op
        needed = replicas if follows_workers else replicas_to_aggregate
        means, sums, next_round = graph.take(needed)
        update = optimizer.apply_gradients(means, global_step)
        with v1.device(examples.device):
            counted = examples.assign_add(sums[1], read_value=False)
        given, shares = graph.issue_shares(
            [update, counted, *graph.count_batches(needed)], next_round
        )
        if follows_workers:
            # The same reading for both: a step waits for as many gradients as it has tokens.
            with tf.control_dependencies([shares]):
                given = tf.group(given, dealt.assign(tf.reduce_sum(shares)).op)
    ops = graph.chief_ops(given)
    return SyncOps(
        **vars(ops),
        global_step=global_step.read_value(),
        train_op=held.assign(token[0]).op,
        take_token=held.assign(graph.tokens.take(queue)).op,
        token_step=tf.identity(token[1], name="token_step_after"),
        start=tf.group(*graph.start(global_step.read_value())),
        clear_tokens=[graph.tokens.clear(each).op for each in range(graph.queues)],
        waiting_batches=graph.waiting_batches(ops.round),
        queues=graph.queues,
        tokens_per_step=tokens_per_step,
        replicas=replicas,
        count_replicas=count_replicas,
    )


def _variable_of(shares: Sequence[int]) -> Variable:
    return v1.Variable(shares, dtype=tf.int32, trainable=False, collections=[], name="token_shares")


def _local_variable(name: str) -> Variable:
    return v1.get_variable(
        name,
        shape=(),
        dtype=tf.int64,
        initializer=v1.zeros_initializer(),
        trainable=False,
        collections=[v1.GraphKeys.LOCAL_VARIABLES],
    )
