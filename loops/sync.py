"""Synchronous training in loops: what a `SyncReplicasOptimizer` needs of a session, and its end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ..cluster.deadline import Deadline, growing_pauses
from ..cluster.session import PREEMPTION_ERRORS
from ..tf_internals import counted_step, tokens_per_step
from .global_step import find_variable

v1 = tf.compat.v1

# What a task does when it ends takes no longer, even if a parameter server is gone.
_FAREWELL_TIMEOUT_MS = 2_000


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


class Farewell(tf.compat.v1.train.SessionRunHook):
    """Has something run when a task's training ends, however it ends.

    A hook's `end` is not called after an error, so a thread waits for the end as well.

    Args:
        operation: What to run.
        probe: Tensors of all parameter servers. If one does not answer, training does not end but
            goes on in another session, and nothing is run. None: it is run in any case.
    """

    def __init__(self, operation: Any, probe: Sequence[Any] | None = None) -> None:
        self._operation, self._probe = operation, probe
        self._lock = threading.Lock()
        self._is_said = False

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Begins to wait for the end of the session."""
        with self._lock:
            self._is_said = False
        thread = threading.Thread(
            target=self._wait, args=(session, coord), name="sync-farewell", daemon=True
        )
        coord.register_thread(thread)  # The session is not closed before it has ended.
        thread.start()

    def end(self, session: Any) -> None:
        """Runs it, at a normal end."""
        self._say(session)

    def _wait(self, session: Any, coord: Any) -> None:
        coord.wait_for_stop()
        self._say(session)

    def _say(self, session: Any) -> None:
        with self._lock:
            if self._is_said:
                return
            self._is_said = True
            options = v1.RunOptions(timeout_in_ms=_FAREWELL_TIMEOUT_MS)
            # It was said already, or a parameter server is gone.
            with contextlib.suppress(tf.errors.OpError, RuntimeError):
                if self._probe is not None:
                    session.run(list(self._probe), options=options)
                session.run(self._operation, options=options)


class SyncReplicasHook(Farewell):
    """What every task of synchronous training needs of its session.

    Args:
        optimizer: A `paramserve.train.SyncReplicasOptimizer`.
        is_chief: Whether this task applies the gradients.
        num_tokens: Tokens at the start; -1: no more than the first step needs.

    Raises:
        ValueError: The optimizer has no gradients yet.
    """

    def __init__(self, optimizer: Any, is_chief: bool, num_tokens: int = -1) -> None:
        self._optimizer, self._is_chief, self._num_tokens = optimizer, is_chief, num_tokens
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Adds what the chief needs to the graph.

        Raises:
            ValueError: The optimizer has no gradients yet.
        """
        optimizer = self._optimizer
        runner = optimizer.get_chief_queue_runner()
        controls = optimizer.controls
        self._runner = runner if self._is_chief else None
        self._init_ops = [optimizer.local_step_init_op]
        if self._is_chief:
            tokens = controls.first_tokens if self._num_tokens == -1 else self._num_tokens
            self._init_ops = [optimizer.chief_init_op, optimizer.get_init_tokens_op(tokens)]
            super().__init__(controls.close, controls.probe)
        else:
            super().__init__(controls.leave)

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Initializes, and begins to aggregate.

        Raises:
            RuntimeError: A variable of the model is not initialized.
        """
        missing = session.run(self._optimizer.ready_for_local_init_op)
        if missing.size:
            names = ", ".join(name.decode() for name in missing)
            raise RuntimeError(
                f"The model is not ready for SyncReplicasOptimizer: {names} not initialized. Have "
                "the scaffold's init_op or its checkpoint initialize them."
            )
        if not self._is_chief:
            wait_for_chief(self._optimizer, session, coord)
        for each in self._init_ops:
            session.run(each)
        super().after_create_session(session, coord)
        if self._runner is not None:
            self._runner.create_threads(session, coord=coord, daemon=True, start=True)


def wait_for_chief(optimizer: Any, session: Any, coord: Any) -> None:
    """Waits while the queue of tokens is closed since an earlier training on the same servers.

    After the optimizer's lease the worker goes on, and ends: there is no chief.
    """
    controls = controls_of(optimizer)
    if controls is None:
        return
    deadline = Deadline.after(controls.lease_secs)
    pauses = growing_pauses()
    while session.run(controls.is_closed) and deadline.remaining_secs():
        if coord.wait_for_stop(next(pauses)):
            return


def controls_of(optimizer: Any) -> Any:
    """What hooks need of a `paramserve.train.SyncReplicasOptimizer`; None of TensorFlow's."""
    return getattr(optimizer, "controls", None)


class SyncWorkerHook(tf.compat.v1.train.SessionRunHook):
    """Has a worker's gradients count as those of the current global step.

    It does so once the local variables are initialized. As a part of their initialization, as is
    usual, it might come before, and the worker's first gradients would be dropped.

    At the end it says that nobody has to wait for this worker, if the optimizer knows how.

    Args:
        optimizer: The `tf.compat.v1.train.SyncReplicasOptimizer`.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._init_op = optimizer.local_step_init_op
        controls = controls_of(optimizer)
        self._farewell = Farewell(controls.leave) if controls is not None else None

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Initializes."""
        wait_for_chief(self._optimizer, session, coord)
        session.run(self._init_op)
        if self._farewell is not None:
            self._farewell.after_create_session(session, coord)

    def end(self, session: Any) -> None:
        """Lets the others go on."""
        if self._farewell is not None:
            self._farewell.end(session)


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
        controls = controls_of(optimizer)
        # With more than the first step needs, workers compute gradients that come too late.
        tokens = -1 if controls is None else controls.first_tokens
        self._tokens_op = optimizer.get_init_tokens_op(tokens)
        self._global_step = global_step
        self._last_step = last_step
        runner = optimizer.get_chief_queue_runner()
        [step_op] = runner.enqueue_ops
        if last_step is not None:
            step_op = _releasing([optimizer, *others], step_op, last_step)
        if controls is not None:
            self._close_op = controls.close
            self._runner = controls.make_runner(step_op)
            return
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
    variable = find_variable(counted_step(optimizers[0]))
    with tf.control_dependencies([step_op]), v1.device(variable.device or None):
        step = tf.identity(variable.read_value())
        return tf.group(*(_release(each, step >= last_step, step) for each in optimizers))


def _release(optimizer: Any, is_due: Any, step: Any) -> Any:
    controls = controls_of(optimizer)
    if controls is not None:
        return controls.release(is_due)
    count = tf.where(is_due, tokens_per_step(optimizer), 0)
    return optimizer.get_chief_queue_runner().queue.enqueue_many((tf.fill([count], step),))
