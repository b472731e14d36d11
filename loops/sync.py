"""Synchronous training in loops: what a `SyncReplicasOptimizer` needs of a session, and its end."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ..cluster.session import PREEMPTION_ERRORS
from .global_step import find_variable

v1 = tf.compat.v1


def as_sync_optimizers(sync_optimizer: Any) -> list[Any]:
    """Returns the argument `sync_optimizer` as a list: None, one optimizer, or several.

    Raises:
        ValueError: There is something else in it, or an optimizer that has no gradients to apply.
    """
    if sync_optimizer is None:
        return []
    several = isinstance(sync_optimizer, (list, tuple))
    optimizers = list(sync_optimizer) if several else [sync_optimizer]
    for optimizer in optimizers:
        if not isinstance(optimizer, v1.train.SyncReplicasOptimizer):
            raise ValueError(
                "`sync_optimizer` must be a tf.train.SyncReplicasOptimizer, or a list of them, "
                f"but there is {optimizer!r}"
            )
        if not hasattr(optimizer, "local_step_init_op"):
            raise ValueError(
                "`sync_optimizer` has no gradients to apply: call its minimize() or "
                "apply_gradients() before train()"
            )
    return optimizers


def ready_for_local_init(optimizers: Sequence[Any]) -> Any:
    """What is missing before any of the optimizers can begin: names, a string of shape [n]."""
    return tf.concat([optimizer.ready_for_local_init_op for optimizer in optimizers], 0)


class SyncWorkerHook(tf.compat.v1.train.SessionRunHook):
    """Has a worker's gradients count as those of the current global step.

    It does so once the local variables are initialized. As a part of their initialization, as is
    usual, it might come before, and the worker's first gradients would be dropped.

    Args:
        optimizer: The `tf.compat.v1.train.SyncReplicasOptimizer`.
    """

    def __init__(self, optimizer: Any) -> None:
        self._init_op = optimizer.local_step_init_op

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Initializes."""
        session.run(self._init_op)


class SyncChiefHook(tf.compat.v1.train.SessionRunHook):
    """Aggregates the gradients of all workers, and lets all go when training is over.

    A worker that waits for a token can not see that it should stop, and the chief is one of them.
    So with the last step comes a token for everybody. When the chief ends before that, it closes
    the queue of tokens, which ends those who wait as the end of the input would.

    Args:
        optimizer: The `tf.compat.v1.train.SyncReplicasOptimizer`.
        global_step: The global step's variable, or a tensor that reads it.
        last_step: Where training ends; None: nowhere.
        others: More optimizers that count the same global step: only one makes the last step, and
            whoever waits for a token of another has to be let go as well.
    """

    def __init__(
        self,
        optimizer: Any,
        global_step: Any,
        last_step: int | None,
        others: Sequence[Any] = (),
    ) -> None:
        self._init_op = optimizer.chief_init_op
        self._tokens_op = optimizer.get_init_tokens_op()
        self._global_step = global_step
        self._last_step = last_step
        runner = optimizer.get_chief_queue_runner()
        [step_op] = runner.enqueue_ops
        if last_step is not None:
            step_op = _releasing([optimizer, *others], step_op, last_step)
        self._close_op = runner.queue.close(cancel_pending_enqueues=True)
        # The optimizer's own runner closes the queue whenever a session ends. On the parameter
        # server it would stay closed: for the session after a recovery, and for the next training.
        self._runner = v1.train.QueueRunner(
            runner.queue,
            [step_op],
            close_op=tf.no_op(),
            cancel_op=tf.no_op(),
            queue_closed_exception_types=(tf.errors.OutOfRangeError, tf.errors.CancelledError),
        )

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Brings everything to the model's global step; nothing is aggregated yet."""
        session.run(self._init_op)
        session.run(self._tokens_op)

    def start(self, session: Any, coord: Any) -> None:
        """Begins to aggregate."""
        self._runner.create_threads(session, coord=coord, daemon=True, start=True)

    def end(self, session: Any) -> None:
        """Lets the others go, where the last step did not."""
        if self._last_step is None or int(session.run(self._global_step)) < self._last_step:
            self.close_queue(session)

    def close_queue(self, session: Any) -> None:
        """Ends every worker that waits for a token, now or later."""
        # It is closed already, or the parameter server is gone.
        with contextlib.suppress(tf.errors.OpError, RuntimeError):
            session.run(self._close_op)


class SyncStartHook(tf.compat.v1.train.SessionRunHook):
    """Begins to aggregate when all optimizers are at the model's global step.

    The steps of one would otherwise make gradients for the next one stale before it has begun, and
    all would wait for its tokens.

    Args:
        chief_hooks: The optimizers' hooks, which come before this one.
    """

    def __init__(self, chief_hooks: Sequence[SyncChiefHook]) -> None:
        self._chief_hooks = chief_hooks

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Begins."""
        for hook in self._chief_hooks:
            hook.start(session, coord)


def is_end_or_preemption(error: BaseException) -> bool:
    """Whether an error ends a loop normally, or makes it go on in another session."""
    return isinstance(error, (tf.errors.OutOfRangeError, StopIteration, *PREEMPTION_ERRORS))


def _releasing(optimizers: Sequence[Any], step_op: Any, last_step: int) -> Any:
    """Makes a step of the chief, and at the last one puts a token more for each worker."""
    variable = find_variable(optimizers[0]._global_step)
    with tf.control_dependencies([step_op]), v1.device(variable.device or None):
        step = tf.identity(variable.read_value())
        releases = []
        for optimizer in optimizers:
            count = tf.where(step >= last_step, optimizer._tokens_per_step, 0)
            queue = optimizer.get_chief_queue_runner().queue
            releases.append(queue.enqueue_many((tf.fill([count], step),)))
        return tf.group(*releases)
