"""Sync mode's part of the graph: what workers push, what the chief applies, and the tokens.

Built on TensorFlow's `SyncReplicasOptimizer`. One rule is ours: *every* gradient is computed on
a token, the first one included. So a worker may join at any time without pushing a gradient that
nobody waits for, and the token of one that leaves can be issued again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from .spec import GradientsAndVariables, Operation, Tensor, Variable


@dataclass(frozen=True)
class SyncOps:
    """Operations of sync mode.

    Attributes:
        train_op: Worker: pushes its gradients, then waits for its next token.
        take_token: Worker: waits for its first token.
        token_step: Worker: int64 scalar, the global step of the token it holds.
        apply_step: Chief: waits for enough gradients, applies their mean, issues tokens.
        start: Chief: brings the accumulators to the restored global step.
        clear_tokens: Chief: drops tokens that an earlier life of the job left behind.
        issue_token: Chief: issues one token for the current global step.
        tokens_per_step: Tokens in the job, so gradients computed for one global step.
    """

    train_op: Operation
    take_token: Operation
    token_step: Tensor
    apply_step: Operation
    start: Operation
    clear_tokens: Operation
    issue_token: Operation
    tokens_per_step: int


class _CountingOptimizer:
    """Applies gradients, and in the same step adds up the examples they came from."""

    def __init__(self, inner: Any, counter: _ExampleCounter, sparse: Sequence[_SparseMean]) -> None:
        self._inner = inner
        self._counter = counter
        self._sparse = sparse

    def apply_gradients(self, pairs: Any, global_step: Any = None) -> Operation:
        pairs = [pair for pair in pairs if pair[0] is not None]
        pairs += [(mean.take(), mean.variable) for mean in self._sparse]
        return tf.group(self._inner.apply_gradients(pairs, global_step), self._counter.add())


class _SparseMean:
    """The mean of the workers' gradients of a variable of which each touches a few rows.

    TensorFlow's sparse accumulators merge two gradients as if both had their rows in order and
    once, and divide a row by the workers that touched it. So rows are summed and ordered before,
    the accumulator sums, and the division is ours. The workers are counted in a row of their own,
    beyond the last, so that sum and count are of the same gradients.
    """

    def __init__(self, gradient: Any, variable: Variable, replicas_to_aggregate: int) -> None:
        self.variable = variable
        self._gradient = gradient
        self._replicas = replicas_to_aggregate
        with tf.compat.v1.device(variable.device):
            self._accumulator = tf.compat.v1.SparseConditionalAccumulator(
                gradient.dtype,
                shape=None,
                shared_name=f"{variable.op.name}/sparse_accumulator",
                reduction_type="SUM",
            )

    def push(self, step: Tensor) -> Operation:
        count_row = tf.constant([self.variable.shape[0]], tf.int64)
        ones = tf.ones([1, *self.variable.shape[1:]], self._gradient.dtype)
        indices = tf.concat([tf.cast(self._gradient.indices, tf.int64), count_row], 0)
        values = tf.concat([self._gradient.values, ones], 0)
        rows, where = tf.unique(indices)
        sums = tf.math.unsorted_segment_sum(values, where, tf.size(rows))
        order = tf.argsort(rows)
        slices = tf.IndexedSlices(tf.gather(sums, order), tf.gather(rows, order))
        return self._accumulator.apply_indexed_slices_grad(slices, local_step=step)

    def take(self) -> Any:
        with tf.compat.v1.device(self.variable.device):
            taken = self._accumulator.take_indexed_slices_grad(self._replicas)
            count = tf.reshape(taken.values[-1], [-1])[0]
            return tf.IndexedSlices(taken.values[:-1] / count, taken.indices[:-1])

    def start(self, global_step: Tensor) -> Operation:
        return self._accumulator.set_global_step(global_step)


class _ExampleCounter:
    """Sums the examples of the gradients in a step, with the accumulators' own rule for stale ones.

    A gradient's examples are pushed to an accumulator of their own, with the same token; so what
    is counted is what was applied, not what was computed.
    """

    def __init__(self, examples: Variable, replicas_to_aggregate: int) -> None:
        self._examples = examples
        self._replicas = replicas_to_aggregate
        with tf.compat.v1.device(examples.device):
            self._accumulator = tf.compat.v1.ConditionalAccumulator(
                tf.float64, shape=(), shared_name="examples/accumulator", reduction_type="SUM"
            )

    def add(self) -> Operation:
        with tf.compat.v1.device(self._examples.device):
            applied = self._accumulator.take_grad(self._replicas)
            return self._examples.assign_add(tf.cast(applied, tf.int64), read_value=False)

    def push(self, examples: Tensor, step: Tensor) -> Operation:
        return self._accumulator.apply_grad(tf.cast(examples, tf.float64), local_step=step)

    def start(self, global_step: Tensor) -> Operation:
        return self._accumulator.set_global_step(global_step)


def synchronize(
    optimizer: Any,
    gradients: GradientsAndVariables,
    *,
    global_step: Variable,
    examples: Variable,
    examples_in_step: Tensor,
    replicas_to_aggregate: int,
    num_workers: int,
) -> SyncOps:
    """Adds synchronous aggregation of `gradients` to the current graph.

    Args:
        optimizer: The `tf.compat.v1.train.Optimizer` that applies the mean gradients.
        gradients: `(gradient, variable)` pairs of this worker.
        global_step: int64 scalar variable, incremented once for each aggregated step.
        examples: int64 scalar variable, to which applied examples are added.
        examples_in_step: Scalar; examples behind this worker's gradients.
        replicas_to_aggregate: Gradients averaged into one step.
        num_workers: Workers planned; more than `replicas_to_aggregate` are backup workers.
    """
    counter = _ExampleCounter(examples, replicas_to_aggregate)
    sparse = [
        _SparseMean(gradient, variable, replicas_to_aggregate)
        for gradient, variable in gradients
        if isinstance(gradient, tf.IndexedSlices)
    ]
    sync = tf.compat.v1.train.SyncReplicasOptimizer(
        _CountingOptimizer(optimizer, counter, sparse), replicas_to_aggregate, num_workers
    )
    held = tf.compat.v1.get_variable(
        "token_step",
        shape=(),
        dtype=tf.int64,
        initializer=tf.compat.v1.zeros_initializer(),
        trainable=False,
        collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
    )
    step = held.read_value()
    pushes = [counter.push(examples_in_step, step), *(mean.push(step) for mean in sparse)]
    with tf.control_dependencies(pushes):
        # None has the optimizer leave a variable out: its gradient takes the way above.
        dense = [
            (tf.identity(gradient) if isinstance(gradient, tf.Tensor) else None, variable)
            for gradient, variable in gradients
        ]
    train_op = tf.group(sync.apply_gradients(dense, global_step), *pushes)
    sync.ready_for_local_init_op.mark_used()  # The chief says when the model is ready.
    queue, local_step = sync._sync_token_queue, sync._local_step
    with tf.compat.v1.device(global_step.device):
        token = queue.dequeue()
        issue = queue.enqueue(global_step.read_value())
        clear = queue.dequeue_many(queue.size())
    with tf.control_dependencies([train_op]):
        token_step = held.assign(local_step.read_value())
    return SyncOps(
        train_op=tf.group(train_op, token_step),
        take_token=tf.group(local_step.assign(token), held.assign(token)),
        token_step=tf.identity(token_step),
        apply_step=sync.get_chief_queue_runner().enqueue_ops[0],
        start=tf.group(
            sync.chief_init_op,
            counter.start(global_step.read_value()),
            *(mean.start(global_step.read_value()) for mean in sparse),
        ),
        clear_tokens=clear.op,
        issue_token=issue,
        tokens_per_step=max(num_workers, replicas_to_aggregate),
    )
