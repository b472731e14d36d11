"""`SyncReplicasOptimizer`: gradients of several workers are averaged into common steps."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ..data_plane.options import BUCKET_BYTES
from ..data_plane.sync.builder import SyncGraph
from ..data_plane.sync.dealer import TokenPlan
from ..data_plane.sync.tokens import SyncCounters, count_up
from ..loops.sync import SyncControls, SyncReplicasHook
from .sync_steps import ChiefQueueRunner

v1 = tf.compat.v1


class SyncReplicasOptimizer(tf.compat.v1.train.SyncReplicasOptimizer):
    """Averages the gradients of several workers, and applies the mean as one step.

    Takes the arguments of `tf.compat.v1.train.SyncReplicasOptimizer` and four more. Gradients cross
    in buckets, with one step number for each parameter server, however many variables there are. A
    worker that ends, dies or hangs does not leave the others waiting. That holds if workers and
    chief have the hook of `make_session_run_hook`, or the chief has the queue runner. The others
    then compute its gradients. The end takes no grace period.

    Example::

        optimizer = SyncReplicasOptimizer(
            tf.compat.v1.train.GradientDescentOptimizer(0.1),
            replicas_to_aggregate=4,
            total_num_replicas=4,
            one_gradient_per_worker=True,
        )
        train_op = optimizer.minimize(loss, global_step=get_or_create_global_step())
        hooks = [optimizer.make_session_run_hook(is_chief)]
        with MonitoredTrainingSession(server.target, is_chief, hooks=hooks) as session:
            while not session.should_stop():
                session.run(train_op)

    Args:
        opt: Computes the gradients and applies their mean.
        replicas_to_aggregate: Gradients in one step.
        total_num_replicas: Workers; `replicas_to_aggregate` if None. Workers beyond
            `replicas_to_aggregate` are backup workers. With fewer workers, each computes several
            gradients per step.
        variable_averages: An `ExponentialMovingAverage`, applied after each step.
        variables_to_average: The variables of those averages.
        use_locking: Has no effect, as in the original.
        name: Prefix of the operations and of shared names: the same in all tasks.
        one_gradient_per_worker: Whether a step has one gradient of each worker at most. Otherwise a
            fast worker may compute two for the same step. With as many replicas to aggregate as
            workers, a step of batches of B examples then equals one step on all of their examples.
        worker_index: Index of this task's worker, for `one_gradient_per_worker`: from 0 up, and
            another in each task. None takes the task's index in a job "worker".
        bucket_bytes: Bytes up to which gradients are pushed together; a larger one is cut. 0:
            each by itself.
        lease_secs: Seconds without a step after which the chief issues the tokens of silent workers
            to others; longer if steps take long.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        opt: tf.compat.v1.train.Optimizer,
        replicas_to_aggregate: int,
        total_num_replicas: int | None = None,
        variable_averages: Any = None,
        variables_to_average: Sequence[Any] | None = None,
        use_locking: bool = False,
        name: str = "sync_replicas",
        *,
        one_gradient_per_worker: bool = False,
        worker_index: int | None = None,
        bucket_bytes: int = BUCKET_BYTES,
        lease_secs: float = 30.0,
    ) -> None:
        # Not the method of `SyncReplicasOptimizer`, which logs that it is deprecated.
        tf.compat.v1.train.Optimizer.__init__(self, use_locking, name)
        total = replicas_to_aggregate if total_num_replicas is None else total_num_replicas
        self._plan = plan = TokenPlan(replicas_to_aggregate, total, one_gradient_per_worker)
        _check(plan, worker_index, lease_secs)
        # The base class calls this one for gradients, slots and variables.
        self._opt = opt
        self._averages = (variable_averages, variables_to_average)
        self._worker_index = worker_index
        self._bucket_bytes = bucket_bytes
        self._lease_secs = lease_secs
        self._gradients_applied = False

    def apply_gradients(
        self, grads_and_vars: Any, global_step: Any = None, name: str | None = None
    ) -> tf.Operation:
        """Adds the operations of workers and chief to the graph.

        Args:
            grads_and_vars: `(gradient, variable)` pairs; a gradient may be None.
            global_step: The integer scalar variable that counts the steps.
            name: A name for the returned operation.

        Returns:
            A step of a worker: its gradients are pushed, and it has its next token.

        Raises:
            ValueError: There is no pair, no gradient, or no global step.
        """
        pairs = list(grads_and_vars or ())
        if not pairs:
            raise ValueError("Must supply at least one variable: grads_and_vars is empty")
        if global_step is None:
            raise ValueError(
                "Global step is required to check staleness: pass global_step=, for example "
                "tf.compat.v1.train.get_or_create_global_step()"
            )
        self._global_step = global_step
        device = tf.no_op().device
        self._worker = self._find_worker(device)
        self.ready_for_local_init_op = v1.report_uninitialized_variables(v1.global_variables())
        self.ready_for_local_init_op.mark_used()  # The opener of a session may not use it.
        with v1.device(device):  # On the worker also where variables go to parameter servers.
            self._local_step = v1.Variable(
                0,
                dtype=tf.int64,
                trainable=False,
                collections=[v1.GraphKeys.LOCAL_VARIABLES],
                name="sync_rep_local_step",
            )
        with tf.name_scope(self._name):
            self._build(pairs)
        self._gradients_applied = True
        train_op = tf.group(self._train_op, name=name)
        v1.add_to_collection(v1.GraphKeys.TRAIN_OP, train_op)
        return train_op

    def get_chief_queue_runner(self) -> tf.compat.v1.train.QueueRunner:
        """Returns the chief's queue runner: it applies means, issues tokens, and watches workers.

        Raises:
            ValueError: There are no gradients yet.
        """
        self._check_applied("get_chief_queue_runner")
        return self._runner

    def get_init_tokens_op(self, num_tokens: int = -1) -> tf.Operation:
        """Puts tokens for the first step into the queue; the chief runs it once.

        Each worker computes its first gradient without a token. So with `one_gradient_per_worker`
        there is nothing to do.

        Args:
            num_tokens: How many; -1: `replicas_to_aggregate`.

        Raises:
            ValueError: There are no gradients yet, or too few tokens for the first step.
        """
        self._check_applied("get_init_tokens_op")
        plan = self._plan
        needed = plan.replicas - plan.workers
        if num_tokens != -1 and num_tokens < needed:
            raise ValueError(
                f"Too few tokens to finish the first step: num_tokens={num_tokens}, but "
                f"replicas_to_aggregate={plan.replicas} with total_num_replicas={plan.workers} "
                f"needs {needed}"
            )
        if num_tokens == -1:
            num_tokens = plan.replicas
        if plan.has_own_queues or num_tokens == 0:
            return tf.no_op(name="no_init_tokens")
        with v1.device(self._global_step.device):
            return self._graph.tokens.give(tf.constant([num_tokens]), self._graph.round)

    def make_session_run_hook(
        self, is_chief: bool, num_tokens: int = -1
    ) -> tf.compat.v1.train.SessionRunHook:
        """Makes the hook that every task of the training needs.

        It initializes the state of synchronous training, makes the chief apply means, and informs
        the other tasks when this task ends.

        Args:
            is_chief: Whether this task is the chief.
            num_tokens: Tokens that the chief issues at the start; -1: no more than the first step
                needs. With more, workers compute gradients that come too late.
        """
        return SyncReplicasHook(self, is_chief, num_tokens)

    def counters(self, session: tf.compat.v1.Session) -> SyncCounters:
        """Returns the workers' gradient counts, over the life of the parameter server's state.

        Args:
            session: A session of this graph, in any task.

        Raises:
            ValueError: There are no gradients yet.
        """
        self._check_applied("counters")
        (_, rows), waiting = session.run([self._graph.ledger_rows, self._graph.waiting])
        return count_up(rows, int(waiting))

    def _find_worker(self, device: str) -> int:
        """Returns this worker's row in the ledger, and its queue if it has its own."""
        index, total = self._worker_index, self._plan.workers
        if not self._plan.has_own_queues:
            return zlib.crc32(device.encode()) if index is None else index
        if index is None:
            task = tf.DeviceSpec.from_string(device)
            if total > 1 and (task.job != "worker" or task.task is None):
                raise ValueError(
                    "one_gradient_per_worker=True needs to know which worker this is, and the "
                    f"device {device!r} is no task of a job 'worker': pass worker_index=, a number "
                    f"from 0 to {total - 1}, another one in each task"
                )
            index = task.task or 0
        if not 0 <= index < total:
            raise ValueError(
                f"worker_index={index} with total_num_replicas={total}: expected a number "
                f"from 0 to {total - 1}"
            )
        return int(index)

    def _build(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        plan, local_step = self._plan, self._local_step
        # Two optimizers of one name would share queues and accumulators.
        names = ";".join(variable.op.name for _, variable in pairs)
        self._graph = graph = SyncGraph(
            pairs,
            self._global_step,
            plan,
            name=f"{self._name}_{zlib.crc32(names.encode()):08x}",
            bucket_bytes=self._bucket_bytes,
        )
        self._train_op = local_step.assign(graph.push(local_step, self._worker)).op
        step = graph.build_step(self._opt)
        averages, variables = self._averages
        if averages is not None:
            with tf.control_dependencies([step]):
                step = tf.group(averages.apply(variables))
        # A token of an earlier training is not for this one.
        queue = plan.queue_of(self._worker)
        drained = [graph.tokens.clear(queue)] if plan.has_own_queues else []
        with tf.control_dependencies(drained):
            self.local_step_init_op = local_step.assign(graph.ledger.round(graph.global_step)).op
        self.chief_init_op = tf.group(
            local_step.assign(graph.global_step), graph.tokens.reopen(), graph.build_start()
        )
        self._runner = self._make_runner(step)
        self.controls = SyncControls(
            make_runner=self._make_runner,
            release=self._release,
            close=graph.tokens.close(),
            first_tokens=max(0, plan.replicas - plan.workers),
            leave=graph.ledger.leave(self._worker),
            is_closed=graph.tokens.is_closed(),
            probe=[each.count for each in graph.leftovers],
            lease_secs=self._lease_secs,
        )

    def _make_runner(self, step: tf.Operation) -> ChiefQueueRunner:
        return ChiefQueueRunner(self._graph, step, self._worker, self._lease_secs)

    def _release(self, is_due: tf.Tensor, _: tf.Tensor) -> tf.Operation:
        """Makes tokens with which every worker can end its wait, if `is_due`."""
        graph, plan = self._graph, self._plan
        counts = tf.fill([plan.queues], tf.where(is_due, plan.deal()[0], 0))
        # The ledger is read here, so after the step that this is for.
        return graph.tokens.give(counts, graph.ledger.round(graph.global_step))

    def _check_applied(self, method: str) -> None:
        if not self._gradients_applied:
            raise ValueError(
                f"{method}() should be called after apply_gradients() or minimize(): there are no "
                "gradients yet"
            )


def _check(plan: TokenPlan, worker_index: int | None, lease_secs: float) -> None:
    numbers = f"replicas_to_aggregate={plan.replicas}, total_num_replicas={plan.workers}"
    if plan.replicas < 1 or plan.workers < 1:
        raise ValueError(f"{numbers}: expected at least 1")
    if plan.has_own_queues and plan.replicas > plan.workers:
        raise ValueError(
            f"one_gradient_per_worker=True with {numbers}: there are not enough workers for one "
            "gradient of each"
        )
    if worker_index is not None and worker_index < 0:
        raise ValueError(f"worker_index={worker_index}: expected at least 0")
    if not lease_secs > 0:
        raise ValueError(f"lease_secs={lease_secs:g}: expected a positive number of seconds")
