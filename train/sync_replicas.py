"""`SyncReplicasOptimizer`: gradients of several workers are averaged into common steps."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ..data_plane.options import BUCKET_BYTES
from ..data_plane.sync.builder import SyncGraph
from ..data_plane.sync.dealer import TokenDealer
from ..data_plane.sync.ledger_watch import OwnQueuesWatch, SharedQueueWatch
from ..data_plane.sync.tokens import SyncCounters, count_up
from ..loops.sync import SyncReplicasHook
from .sync_steps import ChiefQueueRunner, SyncControls

v1 = tf.compat.v1

# The row in the ledger of the chief's thread that looks after the workers.
_WATCH_ROW = -2


class SyncReplicasOptimizer(tf.compat.v1.train.SyncReplicasOptimizer):
    """Averages the gradients of several workers, and applies the mean as one step.

    Takes the arguments of `tf.compat.v1.train.SyncReplicasOptimizer` and four more. Gradients cross
    in buckets, with one step number for each parameter server, however many variables there are. A
    worker that ends, dies or hangs does not leave the others waiting, if workers and chief have the
    hook of `make_session_run_hook` (or the chief the queue runner): its gradients are then computed
    by others. And the end takes no grace period.

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
        total_num_replicas: Workers; `replicas_to_aggregate` if None. What are more are backup
            workers; if there are fewer, they compute several gradients for a step.
        variable_averages: An `ExponentialMovingAverage`, applied after each step.
        variables_to_average: What it is applied to.
        use_locking: Has no effect, as in the original.
        name: A name for the operations, and for what tasks share: the same in all of them.
        one_gradient_per_worker: Whether a step has one gradient of each worker at most. Otherwise
            a fast worker may compute two for the same step. With as many replicas to aggregate as
            workers, a step of batches of B examples is then exactly one on all of their examples.
        worker_index: Which of the workers this task is, for `one_gradient_per_worker`: from 0 up,
            and another in each task. None takes the task's index in a job "worker".
        bucket_bytes: Bytes up to which gradients are pushed together; a larger one is cut. 0:
            each by itself.
        lease_secs: Seconds without a step after which the chief issues the tokens of workers that
            are not heard of to others. (Longer, where steps take long.)

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
        # Not that of `SyncReplicasOptimizer`, which says that it is deprecated.
        tf.compat.v1.train.Optimizer.__init__(self, use_locking, name)
        total = replicas_to_aggregate if total_num_replicas is None else total_num_replicas
        _check(replicas_to_aggregate, total, one_gradient_per_worker, worker_index, lease_secs)
        self._opt = opt
        self._replicas, self._total = replicas_to_aggregate, total
        self._tokens_per_step = max(total, replicas_to_aggregate)
        self._averages = (variable_averages, variables_to_average)
        self._has_own_queues = one_gradient_per_worker
        self._worker_index = worker_index
        self._bucket_bytes = bucket_bytes
        self._lease_secs = lease_secs
        self._gradients_applied = False

    def compute_gradients(self, *args: Any, **kwargs: Any) -> list[tuple[Any, Any]]:
        """Computes this worker's gradients, with the inner optimizer's `compute_gradients`."""
        return self._opt.compute_gradients(*args, **kwargs)

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
        worker_device = tf.no_op().device
        self._worker, self._row = self._find_worker(worker_device)
        self.ready_for_local_init_op = v1.report_uninitialized_variables(v1.global_variables())
        self.ready_for_local_init_op.mark_used()  # By whoever opens a session, if it waits at all.
        self._local_step = _local_step(worker_device)
        with tf.name_scope(self._name):
            self._graph = self._build_graph(pairs)
            train_op = self._build_worker()
            step = self._build_step()
            self._build_start()
            self._build_chief(step)
        self._gradients_applied = True
        train_op = tf.group(train_op, name=name)
        v1.add_to_collection(v1.GraphKeys.TRAIN_OP, train_op)
        return train_op

    def get_chief_queue_runner(self) -> tf.compat.v1.train.QueueRunner:
        """What the chief runs in threads: applies means, issues tokens, looks after the workers.

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
        needed = self._replicas - self._total
        if num_tokens != -1 and num_tokens < needed:
            raise ValueError(
                f"Too few tokens to finish the first step: num_tokens={num_tokens}, but "
                f"replicas_to_aggregate={self._replicas} with total_num_replicas={self._total} "
                f"needs {needed}"
            )
        if num_tokens == -1:
            num_tokens = self._replicas
        if self._has_own_queues or num_tokens == 0:
            return tf.no_op(name="no_init_tokens")
        with v1.device(self._global_step.device):
            return self._graph.tokens.give(tf.constant([num_tokens]), self._graph.round())

    def make_session_run_hook(
        self, is_chief: bool, num_tokens: int = -1
    ) -> tf.compat.v1.train.SessionRunHook:
        """Makes the hook that every task of the training needs.

        It initializes what synchronous training needs, has the chief apply means, and tells the
        others when this task ends.

        Args:
            is_chief: Whether this task is the chief.
            num_tokens: Tokens that the chief issues at the start; -1: no more than the first step
                needs. With more, workers compute gradients that come too late.
        """
        return SyncReplicasHook(self, is_chief, num_tokens)

    def counters(self, session: tf.compat.v1.Session) -> SyncCounters:
        """What became of the workers' gradients, over the life of the parameter server's state.

        Args:
            session: A session of this graph, in any task.

        Raises:
            ValueError: There are no gradients yet.
        """
        self._check_applied("counters")
        (_, rows), waiting = session.run([self._chief_ops.ledger, self._chief_ops.waiting])
        return count_up(rows, int(waiting))

    def get_slot(self, *args: Any, **kwargs: Any) -> Any:
        """A slot of the inner optimizer."""
        return self._opt.get_slot(*args, **kwargs)

    def get_slot_names(self, *args: Any, **kwargs: Any) -> list[str]:
        """The names of the inner optimizer's slots."""
        return self._opt.get_slot_names(*args, **kwargs)

    def variables(self) -> list[Any]:
        """The inner optimizer's variables."""
        return self._opt.variables()

    # -- the graph

    def _find_worker(self, device: str) -> tuple[int, int]:
        """This worker's queue, and its row in the ledger."""
        if not self._has_own_queues:
            return 0, zlib.crc32(
                device.encode()
            ) if self._worker_index is None else self._worker_index
        index = self._worker_index
        if index is None:
            task = tf.DeviceSpec.from_string(device)
            if self._total > 1 and (task.job != "worker" or task.task is None):
                raise ValueError(
                    "one_gradient_per_worker=True needs to know which worker this is, and the "
                    f"device {device!r} is no task of a job 'worker': pass worker_index=, a number "
                    f"from 0 to {self._total - 1}, another one in each task"
                )
            index = task.task or 0
        if not 0 <= index < self._total:
            raise ValueError(
                f"worker_index={index} with total_num_replicas={self._total}: expected a number "
                f"from 0 to {self._total - 1}"
            )
        return index, index

    def _build_graph(self, pairs: Sequence[tuple[Any, Any]]) -> SyncGraph:
        # Two optimizers of one name would share queues and accumulators.
        names = ";".join(variable.op.name for _, variable in pairs)
        return SyncGraph(
            pairs,
            self._global_step,
            name=f"{self._name}_{zlib.crc32(names.encode()):08x}",
            shares=[1] * self._total if self._has_own_queues else [self._tokens_per_step],
            can_deal=self._has_own_queues,
            bucket_bytes=self._bucket_bytes,
        )

    def _build_worker(self) -> tf.Operation:
        number = tf.identity(self._local_step.read_value())
        with tf.control_dependencies(self._graph.push(number, self._row)):
            token = self._graph.tokens.take(self._worker)
        return self._local_step.assign(token).op

    def _build_step(self) -> tf.Operation:
        # Outside of our name scope, as the names of what an optimizer keeps are those of its own.
        with v1.device(self._global_step.device), v1.name_scope(""):
            means, _, next_round = self._graph.take(self._replicas)
            update = self._opt.apply_gradients(means, self._global_step)
        given, _ = self._graph.issue_shares([update], next_round)
        averages, variables = self._averages
        if averages is None:
            return given
        with tf.control_dependencies([given]):
            return tf.group(averages.apply(variables))

    def _build_start(self) -> None:
        graph, own = self._graph, self._has_own_queues
        first = graph.step()
        drained = [graph.tokens.clear(self._worker)] if own else []
        with tf.control_dependencies(drained):
            self.local_step_init_op = self._local_step.assign(graph.round()).op
        self.chief_init_op = tf.group(
            self._local_step.assign(first),
            graph.tokens.reopen(),
            *graph.start(first),
            *([graph.shares.initializer] if own else []),
        )

    def _build_chief(self, step: tf.Operation) -> None:
        tokens, ops = self._graph.tokens, self._graph.chief_ops(step, _WATCH_ROW)
        self._chief_ops, close = ops, tokens.close()

        def make_runner(step: tf.Operation) -> ChiefQueueRunner:
            return ChiefQueueRunner(
                tokens.queues[0], step, ops, self._make_watch, self._replicas, self._lease_secs
            )

        self._runner = make_runner(step)
        self.controls = SyncControls(
            make_runner=make_runner,
            release=self._release,
            close=close,
            leave=self._graph.ledger.leave(self._row),
            is_closed=tokens.is_closed(),
            probe=[each.count for each in ops.leftovers],
            lease_secs=self._lease_secs,
            first_tokens=max(0, self._replicas - self._total),
        )

    def _make_watch(self) -> SharedQueueWatch:
        queues, tokens = self._graph.queues, self._tokens_per_step
        dealer = TokenDealer(queues, tokens, self._lease_secs, has_shared_queue=False)
        if not self._has_own_queues:
            return SharedQueueWatch(dealer)
        dealer.begin(dict.fromkeys(range(self._total), ""))
        return OwnQueuesWatch(dealer, self._total, self._row)

    def _release(self, is_due: tf.Tensor) -> tf.Operation:
        """Tokens with which every worker can leave a wait, if `is_due`."""
        each = 1 if self._has_own_queues else self._tokens_per_step
        counts = tf.fill([self._graph.queues], tf.where(is_due, each, 0))
        return self._graph.tokens.give(counts, self._graph.round())

    def _check_applied(self, method: str) -> None:
        if not self._gradients_applied:
            raise ValueError(
                f"{method}() should be called after apply_gradients() or minimize(): there are no "
                "gradients yet"
            )


def _local_step(device: str) -> Any:
    """This worker's step; on the worker also where variables go to parameter servers."""
    with v1.device(device):
        return v1.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            collections=[v1.GraphKeys.LOCAL_VARIABLES],
            name="sync_rep_local_step",
        )


def _check(
    replicas: int, total: int, has_own_queues: bool, worker_index: int | None, lease_secs: float
) -> None:
    if replicas < 1 or total < 1:
        raise ValueError(
            f"replicas_to_aggregate={replicas}, total_num_replicas={total}: expected at least 1"
        )
    if has_own_queues and replicas > total:
        raise ValueError(
            f"one_gradient_per_worker=True with replicas_to_aggregate={replicas} and "
            f"total_num_replicas={total}: there are not enough workers for one gradient of each"
        )
    if worker_index is not None and worker_index < 0:
        raise ValueError(f"worker_index={worker_index}: expected at least 0")
    if not lease_secs > 0:
        raise ValueError(f"lease_secs={lease_secs:g}: expected a positive number of seconds")
