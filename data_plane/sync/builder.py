"""The graph of synchronous steps: the workers' pushes, the chief's update, and the tokens.

`SyncGraph` has the common part of the service and `SyncReplicasOptimizer`, `SyncOps` the service's
own. One rule is the service's own: *every* gradient is computed on a token, the first one
included. So a worker may join at any time without pushing a gradient that no step waits for. The
token of a worker that leaves can be issued again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ..options import BUCKET_BYTES
from ..tensors import GradientsAndVariables, Operation, Tensor, Variable
from .accumulators import Accumulator
from .batch_tally import BatchCounts, BatchTally
from .dealer import TokenPlan
from .gradients import GradientAccumulators
from .tokens import GradientLedger, TokenQueues

v1 = tf.compat.v1


class SyncGraph:
    """A model's accumulators, ledger and tokens, with the operations that every user needs.

    Args:
        gradients: `(gradient, variable)` pairs of this worker.
        global_step: Integer scalar variable, or a tensor that reads it.
        plan: Queues, and tokens in a round.
        name: Prefix of shared names; unique in the job.
        input_counts: Counter of applied batches, if the input is read in shards.
        bucket_bytes: Bytes up to which gradients are pushed together.

    Attributes:
        global_step: int64 scalar.
        round: int64 scalar: the round of present gradients, see `data_plane.sync.tokens`.
        counts: int32 placeholder of shape [queues], for the next three.
        issue_tokens: Issues `counts` tokens for the round under way.
        reissue_tokens: The same, and counts them as issued again.
        deal_tokens: Makes each step issue `counts` tokens from now on.
        queue_sizes: int32 of shape [queues]: tokens that no worker has taken.
        ledger_rows: The pushes of every worker, see `GradientLedger.rows`.
        leftovers: Gradients that an earlier life of the job left behind, by accumulator.
        waiting: int32 scalar: gradients that wait for the rest of their step.
    """

    def __init__(
        self,
        gradients: GradientsAndVariables,
        global_step: Any,
        plan: TokenPlan,
        *,
        name: str = "paramserve/sync",
        input_counts: BatchCounts | None = None,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self.plan, self._step, self._device = plan, global_step, global_step.device
        device = self._device
        self._gradients = GradientAccumulators(gradients, bucket_bytes=bucket_bytes, name=name)
        # Of each gradient, 1 and its examples: the first sum is the number of gradients.
        self._tally = Accumulator(tf.int64, [2], device, f"{name}/tally", "SUM")
        self._batches = [BatchTally(input_counts, device, name)] if input_counts else []
        self._accumulators = [self._tally, *self._batches, *self._gradients.accumulators]
        self.ledger = GradientLedger(device, name)
        self.tokens = TokenQueues(plan.queues, device, name)
        self.counts = v1.placeholder(tf.int32, [plan.queues], name="token_counts")
        with v1.device(device):
            # Variables where there is no need would shift where later ones are placed.
            self._shares = _variable(plan.deal(), "token_shares") if plan.has_own_queues else None
            self._dealt = _variable(plan.replicas, "tokens_dealt") if plan.follows_workers else None
            step = global_step.read_value() if isinstance(global_step, tf.Variable) else global_step
            self.global_step = tf.cast(step, tf.int64)
            self.round = self.ledger.round(self.global_step)
            self.issue_tokens = self.tokens.give(self.counts, self.round)
            self.deal_tokens = tf.no_op()
            if self._shares is not None:
                self.deal_tokens = self._shares.assign(self.counts).op
        noted = self.ledger.reissue(tf.cast(tf.reduce_sum(self.counts), tf.int64))
        self.reissue_tokens = tf.group(self.issue_tokens, noted)
        self.queue_sizes = self.tokens.sizes()
        self.ledger_rows = self.ledger.rows()
        self.leftovers = [each.leftover() for each in self._accumulators]
        self.waiting = self.leftovers[0].count

    def build_start(self) -> Operation:
        """Makes rounds begin at the global step, and drops gradients from before it."""
        variables = [each for each in (self._shares, self._dealt) if each is not None]
        return tf.group(
            self.ledger.start(self.global_step),
            *(each.start(self.global_step) for each in self._accumulators),
            *(each.initializer for each in variables),
        )

    def push(self, held: Variable, worker: int, examples: Tensor | int = 0) -> Tensor:
        """Pushes a worker's gradients, then waits for its next token, an int64 scalar.

        Args:
            held: The token on which they are computed, an int64 variable on the worker.
            worker: The worker's row in the ledger, which also determines its queue.
            examples: Scalar on the worker: examples behind the gradients.
        """
        number = tf.identity(held.read_value())
        # Not before there are gradients: a worker that dies while it computes them counts nothing.
        with tf.control_dependencies(self._gradients.sources):
            number = tf.identity(number)
        # Round and examples cross as one tensor to the server that needs both.
        header = tf.stack([number, tf.cast(examples, tf.int64)])
        with v1.device(self._device):
            arrived = header[0]
            figures = tf.stack([tf.constant(1, tf.int64), header[1]])
        pushed = [
            self.ledger.push(worker, arrived),
            self._tally.push(figures, arrived),
            *(each.push_batches(arrived) for each in self._batches),
            *self._gradients.push(number, {self._device: arrived}),
        ]
        with tf.control_dependencies(pushed):
            return self.tokens.take(self.plan.queue_of(worker))

    def build_step(
        self, optimizer: Any, count: Callable[[Tensor], Sequence[Operation]] = lambda _: ()
    ) -> Operation:
        """Waits for enough gradients, applies their mean, then issues the next round's tokens.

        Args:
            optimizer: The `tf.compat.v1.train.Optimizer` that applies the means.
            count: Adds operations that take the sum of applied examples, an int64 scalar.
        """
        # Outside of any name scope, because an optimizer's state has its own names.
        with v1.device(self._device), v1.name_scope(""):
            # A number of the graph need not cross to the accumulators; a variable's value must.
            replicas = self.plan.replicas if self._dealt is None else self._dealt.read_value()
            sums, means = self._tally.take(replicas), self._gradients.take(replicas)
            next_round = self.ledger.apply(sums[0])
            update = optimizer.apply_gradients(means, self._step)
            counted = [*count(sums[1]), *(each.apply(replicas) for each in self._batches)]
            with tf.control_dependencies([update, *counted]):
                shares = tf.constant(self.plan.deal())
                if self._shares is not None:
                    shares = self._shares.read_value()
                given = [self.tokens.give(shares, next_round)]
            if self._dealt is not None:
                # The same reading for both: a step waits for as many gradients as it has tokens.
                given.append(self._dealt.assign(tf.reduce_sum(shares)).op)
            return tf.group(*given)


class SyncOps(SyncGraph):
    """Operations of the service's sync mode.

    Args:
        gradients: As of `SyncGraph`, like `global_step`, `plan` and the last ones.
        optimizer: The `tf.compat.v1.train.Optimizer` that applies the mean gradients.
        examples: int64 scalar variable, to which applied examples are added.
        examples_in_step: Scalar; examples behind this worker's gradients.
        worker: Index of the worker, if it is one.

    Attributes:
        train_op: Worker: pushes its gradients, then waits for its next token.
        take_token: Worker: waits for its first token.
        token_step: Worker: int64 scalar, the global step when `train_op` has its token.
        start: Chief: makes rounds begin at the restored global step.
        apply_step: Chief: waits for enough gradients, applies their mean, issues tokens.
        clear_tokens: Chief: drops tokens that an earlier life of the job left behind; by queue.
        waiting_batches: int64 of shape [k]: the batches of waiting gradients, if the input is
            read in shards.
        replicas: int32 scalar: gradients that make the global step under way.
        count_replicas: Chief: if that number follows the workers, makes the next step take as many
            gradients as `counts` sums to; to be run while no step is under way.
    """

    def __init__(
        self,
        gradients: GradientsAndVariables,
        global_step: Variable,
        plan: TokenPlan,
        *,
        optimizer: Any,
        examples: Variable,
        examples_in_step: Tensor,
        worker: int = 0,
        input_counts: BatchCounts | None = None,
        **more: Any,
    ) -> None:
        held = v1.get_variable(
            "token_step",
            shape=(),
            dtype=tf.int64,
            initializer=v1.zeros_initializer(),
            trainable=False,
            collections=[v1.GraphKeys.LOCAL_VARIABLES],
        )
        super().__init__(gradients, global_step, plan, input_counts=input_counts, **more)
        if input_counts is not None:
            examples_in_step = input_counts.of_those_that_count(examples_in_step)

        def count(applied: Tensor) -> list[Operation]:
            with v1.device(examples.device):
                return [examples.assign_add(applied, read_value=False)]

        token = self.push(held, worker, examples_in_step)
        self.apply_step = self.build_step(optimizer, count)
        with v1.device(self._device), tf.control_dependencies([token]):
            # Both cross as one tensor.
            token = tf.stack([token, global_step.read_value()])
        self.train_op = held.assign(token[0]).op
        self.token_step = tf.identity(token[1], name="token_step_after")
        self.take_token = held.assign(self.tokens.take(plan.queue_of(worker))).op
        self.start = self.build_start()
        self.clear_tokens = [self.tokens.clear(each).op for each in range(plan.queues)]
        waiting = [each.waiting(self.round) for each in self._batches]
        self.waiting_batches = tf.concat([tf.zeros([0], tf.int64), *waiting], 0)
        self.replicas, self.count_replicas = tf.constant(plan.replicas), tf.no_op()
        if self._dealt is not None:
            self.replicas = self._dealt.read_value()
            self.count_replicas = self._dealt.assign(tf.reduce_sum(self.counts)).op


def _variable(value: Any, name: str) -> Variable:
    return v1.Variable(value, dtype=tf.int32, trainable=False, collections=[], name=name)
