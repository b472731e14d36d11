"""Synchronous training in loops: the session of a `SyncReplicasOptimizer`, and its end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..cluster.deadline import Deadline, growing_pauses
from ..cluster.session import PREEMPTION_ERRORS
from ..tf_internals import counted_step, tokens_per_step
from .fetches import find_variable

v1 = tf.compat.v1

# The work of a task at its end takes no longer, even if a parameter server is gone.
_FAREWELL_TIMEOUT_MS = 2_000
# How threads end that use a closed queue.
_ENDS = (tf.errors.OutOfRangeError, tf.errors.CancelledError)


@dataclass(frozen=True)
class SyncControls:
    """The parts of a `SyncReplicasOptimizer` for hooks, beside its documented methods.

    Attributes:
        make_runner: Makes a queue runner of a step of the chief.
        release: Makes an operation that gives each worker another token if a bool scalar is true;
            it also takes the global step.
        close: Ends every worker that waits for a token, now or later.
        first_tokens: Tokens without which there would be too few gradients for the first step;
            with more, workers compute gradients that come too late. -1: not known.
        leave: Reports that this worker computes no further gradient; None: not needed.
        is_closed: Whether an earlier training closed the queues; None: there is no remedy.
        probe: Tensors of all parameter servers that hold gradients.
        lease_secs: Bound of each wait for a task, in seconds.
    """

    make_runner: Callable[[Any], tf.compat.v1.train.QueueRunner]
    release: Callable[[Any, Any], Any]
    close: Any
    first_tokens: int = -1
    leave: Any = None
    is_closed: Any = None
    probe: Sequence[Any] = ()
    lease_secs: float = 0.0


def controls_of(optimizer: Any) -> SyncControls:
    """Returns the controls of an optimizer, or makes those of TensorFlow's own."""
    controls: SyncControls | None = getattr(optimizer, "controls", None)
    if controls is not None:
        return controls
    queue = optimizer.get_chief_queue_runner().queue

    def make_runner(step: Any) -> Any:
        # The optimizer's own runner closes the queue whenever a session ends. On the parameter
        # server it would stay closed: for the session after a recovery, and for the next training.
        nothing = tf.no_op()
        return v1.train.QueueRunner(
            queue, [step], close_op=nothing, cancel_op=nothing, queue_closed_exception_types=_ENDS
        )

    def release(is_due: Any, step: Any) -> Any:
        count = tf.where(is_due, tokens_per_step(optimizer), 0)
        return queue.enqueue_many((tf.fill([count], step),))

    return SyncControls(make_runner, release, queue.close(cancel_pending_enqueues=True))


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


class Farewell(tf.compat.v1.train.SessionRunHook):
    """The last operation of a task's training, which also runs after an error.

    A hook's `end` is not called after an error, so a thread waits for the end as well.

    Args:
        operation: The operation.
        probe: Tensors of all parameter servers. If one does not answer, training continues in
            another session, and the operation is not run.
    """

    def __init__(self, operation: Any, probe: Sequence[Any] = ()) -> None:
        self._operation, self._probe = operation, probe
        self._lock = threading.Lock()
        self._is_said = False

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Begins to wait for the end of the session."""
        with self._lock:
            self._is_said = False

        def wait() -> None:
            coord.wait_for_stop()
            self.end(session)

        thread = threading.Thread(target=wait, name="sync-farewell", daemon=True)
        coord.register_thread(thread)  # The session is not closed before it has ended.
        thread.start()

    def end(self, session: Any) -> None:
        """Runs it, once in a session."""
        with self._lock:
            if self._is_said:
                return
            self._is_said = True
            options = v1.RunOptions(timeout_in_ms=_FAREWELL_TIMEOUT_MS)
            # It has run already, or a parameter server is gone.
            with contextlib.suppress(tf.errors.OpError, RuntimeError):
                if self._probe:
                    session.run(list(self._probe), options=options)
                session.run(self._operation, options=options)


class SyncReplicasHook(tf.compat.v1.train.SessionRunHook):
    """Hook with the session work of every task of synchronous training.

    Local steps are initialized after the local variables. As a part of the usual initialization,
    that might come before, and a worker's first gradients would be dropped.

    Args:
        optimizer: A `tf.compat.v1.train.SyncReplicasOptimizer`.
        is_chief: Whether this task applies the gradients.
        num_tokens: Tokens at the start; -1: no more than the first step needs.
    """

    def __init__(self, optimizer: Any, is_chief: bool, num_tokens: int = -1) -> None:
        self._optimizer, self._is_chief, self._num_tokens = optimizer, is_chief, num_tokens

    def begin(self) -> None:
        """Adds the ops of the task to the graph.

        Raises:
            ValueError: The optimizer has no gradients yet.
        """
        optimizer = self._optimizer
        self._runner = optimizer.get_chief_queue_runner() if self._is_chief else None
        self._controls = controls = controls_of(optimizer)
        self._init_ops, farewell = [optimizer.local_step_init_op], controls.leave
        if self._is_chief:
            tokens = controls.first_tokens if self._num_tokens == -1 else self._num_tokens
            self._init_ops = [optimizer.chief_init_op, optimizer.get_init_tokens_op(tokens)]
            farewell = controls.close
        probe = controls.probe if self._is_chief else ()
        self._farewell = Farewell(farewell, probe) if farewell is not None else None

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
            self._wait_for_chief(session, coord)
        for each in self._init_ops:
            session.run(each)
        if self._farewell is not None:
            self._farewell.after_create_session(session, coord)
        if self._runner is not None:
            self._runner.create_threads(session, coord=coord, daemon=True, start=True)

    def end(self, session: Any) -> None:
        """Releases the other tasks."""
        if self._farewell is not None:
            self._farewell.end(session)

    def _wait_for_chief(self, session: Any, coord: Any) -> None:
        """Waits while the queues are closed since an earlier training on the same servers.

        After the optimizer's lease the worker continues, and ends: there is no chief.
        """
        is_closed = self._controls.is_closed
        deadline = Deadline.after(self._controls.lease_secs)
        pauses = growing_pauses()
        while is_closed is not None and session.run(is_closed) and deadline.remaining_secs():
            if coord.wait_for_stop(next(pauses)):
                return


class SyncChiefHook(tf.compat.v1.train.SessionRunHook):
    """Hook that aggregates the gradients of all workers, and releases all when training is over.

    A worker that waits for a token does not notice the end, and the chief is one of them. So the
    last step brings a token for every worker. If the chief ends before that, it closes the queues
    of tokens, which ends waiting workers as the end of the input would.

    Args:
        optimizers: The optimizers. If several count the same global step, only one makes the last.
            Workers that wait for a token of another have to be released as well.
        global_step: The global step's variable, or a tensor that reads it.
        last_step: Global step at which training ends; None: no limit.
    """

    def __init__(self, optimizers: Sequence[Any], global_step: Any, last_step: int | None) -> None:
        self._global_step, self._last_step = global_step, last_step
        self._controls = [controls_of(each) for each in optimizers]
        self._init_ops, self._runners = [], []
        for optimizer, controls in zip(optimizers, self._controls, strict=True):
            tokens = optimizer.get_init_tokens_op(controls.first_tokens)
            self._init_ops += [optimizer.chief_init_op, tokens]
            [step_op] = optimizer.get_chief_queue_runner().enqueue_ops
            if last_step is not None:
                step_op = self._releasing(step_op, find_variable(counted_step(optimizer)))
            self._runners.append(controls.make_runner(step_op))

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Brings everything to the model's global step, then begins to aggregate.

        Otherwise the steps of one optimizer would make gradients for the next one stale before it
        has begun, and all would wait for its tokens.
        """
        for each in self._init_ops:
            session.run(each)
        for runner in self._runners:
            runner.create_threads(session, coord=coord, daemon=True, start=True)

    def end(self, session: Any) -> None:
        """Releases the other tasks, if the last step did not."""
        if self._last_step is None or int(session.run(self._global_step)) < self._last_step:
            self.close_queues(session)

    def close_queues(self, session: Any) -> None:
        """Ends every worker that waits for a token, now or later."""
        for each in self._controls:
            # It is closed already, or the parameter server is gone.
            with contextlib.suppress(tf.errors.OpError, RuntimeError):
                session.run(each.close)

    def _releasing(self, step_op: Any, variable: Any) -> Any:
        """Makes a step of the chief, and at the last one puts a token more for each worker."""
        with tf.control_dependencies([step_op]), v1.device(variable.device or None):
            step = tf.identity(variable.read_value())
            is_due = step >= self._last_step
            return tf.group(*(each.release(is_due, step) for each in self._controls))


def is_end_or_preemption(error: BaseException) -> bool:
    """Returns whether an error ends a loop normally, or makes it continue in another session."""
    return isinstance(error, (tf.errors.OutOfRangeError, StopIteration, *PREEMPTION_ERRORS))
