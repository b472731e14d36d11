"""`Loop`, what one training loop consists of, `run_loop`, which runs any, and the plain one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from ..reasons import reason_of

_logger = logging.getLogger(__name__)

# Seconds that queue runners and other threads get to end before the session is closed on them.
# TensorFlow gives them 120, which a synchronous chief always used up: its queue runner waits for
# gradients that will not come, and only the close ends it.
STOP_GRACE_SECS = 3.5
# The same where such a thread is certain, since a `SyncReplicasOptimizer` made it.
SYNC_STOP_GRACE_SECS = 0.4
# Seconds that TensorFlow waits for them in all, looking after 1 ms, 3 ms, ..., 2 s, 4.1 s.
JOIN_GRACE_SECS = 8.0
# The original does not let its caller choose how often `global_step/sec` is written either.
LOG_STEP_COUNT_STEPS = 100


@dataclass(frozen=True)
class Step:
    """The arguments of a step function.

    Attributes:
        session: The session itself, without hooks: the newest, after a recovery too.
        run: `session.run` with every hook. A step function calls it once, with the train op: hooks
            count steps by it, and fetch tensors that depend on the train op.
        request_stop: Ends the loop after this step.
    """

    session: tf.compat.v1.Session
    run: Callable[..., Any]
    request_stop: Callable[[], None]


StepFunction = Callable[[Step], Any]


@dataclass(frozen=True, kw_only=True)
class Services:
    """The chief's tasks beside the steps; without a log directory there are none.

    Attributes:
        save_checkpoint_secs: Seconds between checkpoints, the first one at the start; None or 0
            saves none by time.
        save_last_checkpoint: Whether there is one at the end in any case.
        save_summaries_steps: Global steps between summaries; None: none by steps.
        save_summaries_secs: Seconds between summaries; None or 0: none by time.
        log_rate_steps: Global steps between two values of `global_step/sec`; None: none by steps.
        log_rate_secs: Seconds between two values of `global_step/sec`; None or 0: none by time.
        mark_sessions: Whether the events say where the run starts and stops.
        writes_events: Whether there are events at all.
        summary_writer: Where events go; None: the log directory's own writer.
    """

    save_checkpoint_secs: float | None = None
    save_last_checkpoint: bool = False
    save_summaries_steps: int | None = None
    save_summaries_secs: float | None = None
    log_rate_steps: int | None = None
    log_rate_secs: float | None = None
    mark_sessions: bool = False
    writes_events: bool = True
    summary_writer: Any = None


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One training loop on one graph, made before the graph is finalized.

    Attributes:
        step: Called for each step; the last value that it returned is the loop's value.
        train_ops: The fetches of a step that trains.
        scaffold: Initialization, readiness, saver and summary op.
        hooks: Run in every task, after those of the services.
        chief_only_hooks: Run in the chief, before all others. In the service, whose chief makes no
            steps, the first worker runs them.
        services: The chief's services beside the steps.
        step_after: int64 scalar: the global step once the train op of the same run is done. The
            services need it.
        last_step: Global step at which the loop ends, before its first step too; None: never.
        is_sync: Whether a `SyncReplicasOptimizer` of the graph has a queue runner in the chief.
        tolerates_nan: Whether training continues when the loss is NaN.
    """

    step: StepFunction
    train_ops: Sequence[Any] = ()
    scaffold: tf.compat.v1.train.Scaffold = field(
        default_factory=lambda: tf.compat.v1.train.Scaffold()
    )
    hooks: Sequence[tf.compat.v1.train.SessionRunHook] = ()
    chief_only_hooks: Sequence[tf.compat.v1.train.SessionRunHook] = ()
    services: Services = Services()
    step_after: Any = None
    last_step: int | None = None
    is_sync: bool = False
    tolerates_nan: bool = False


@dataclass(frozen=True, kw_only=True)
class LoopContext:
    """The context of a loop: its task, as far as the loop's maker needs it.

    Attributes:
        is_chief: True if this task runs the parts of a loop that only the chief runs in its steps.
        logdir: The directory in which this task may write; None or "" if there is none.
        start_step: Global step of the checkpoint that training starts from; 0 for a fresh start.
    """

    is_chief: bool = True
    logdir: str | None = None
    start_step: int = 0


class CurrentSession(tf.compat.v1.train.SessionRunHook):
    """Hook that keeps the current session and coordinator.

    TensorFlow's `run_step_fn` keeps handing out the session that was closed by a recovery.
    """

    session: tf.compat.v1.Session | None = None
    coordinator: tf.compat.v1.train.Coordinator | None = None

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Called for each new session."""
        self.session, self.coordinator = session, coord


def run_loop(
    loop: Loop,
    session_creator: tf.compat.v1.train.SessionCreator,
    hooks: Sequence[tf.compat.v1.train.SessionRunHook],
    on_error: Callable[[tf.compat.v1.Session, BaseException], None] = lambda session, error: None,
) -> Any:
    """Runs a loop until a hook or the step function stops it, or the input ends.

    A session that lost a parameter server is replaced by another one of the session creator. The
    step under way is made again in that one.

    Args:
        loop: The loop.
        session_creator: Makes ready sessions of the default graph.
        hooks: All hooks, those of `loop` included.
        on_error: Called with the last session before an error leaves the loop.

    Returns:
        The last step's value; None if no step ended.
    """
    current = CurrentSession()
    with tf.compat.v1.train.MonitoredSession(
        session_creator, [current, *hooks], stop_grace_period_secs=JOIN_GRACE_SECS
    ) as monitored:
        try:
            return _run_until_stop(loop.step, monitored, current)
        except BaseException as error:
            assert current.session is not None
            on_error(current.session, error)
            raise


def _run_until_stop(
    step: StepFunction, monitored: tf.compat.v1.train.MonitoredSession, current: CurrentSession
) -> Any:
    def make_step(step_context: Any) -> Any:
        assert current.session is not None
        assert current.coordinator is not None
        return step(
            Step(current.session, step_context.run_with_hooks, current.coordinator.request_stop)
        )

    value = None
    try:
        while not monitored.should_stop():
            value = monitored.run_step_fn(make_step)
    except (tf.errors.OutOfRangeError, StopIteration) as error:
        # A normal end; the caller needs the value as well.
        _logger.info("The input has ended (%s); so does training.", reason_of(error))
    return value


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Arguments of `contrib.training.train` for the loop itself."""

    scaffold: tf.compat.v1.train.Scaffold | None = None
    hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None = None
    chief_only_hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None = None
    save_checkpoint_secs: float | None = 600
    save_summaries_steps: int | None = 100
    run_metadata: Any = None


def training_loop(train_op: Any, options: TrainingOptions, *, step_after: Any = None) -> Loop:
    """Makes the loop.

    Args:
        train_op: Fetched in each step.
        options: The options of the loop.
        step_after: int64 scalar, the global step once `train_op` is done; None if nothing is
            written.
    """
    hooks, chief_only_hooks = tuple(options.hooks or ()), tuple(options.chief_only_hooks or ())
    scaffold = options.scaffold

    def step(step: Step) -> Any:
        return step.run(train_op, run_metadata=options.run_metadata)

    return Loop(
        step=step,
        train_ops=(train_op,),
        # Hooks and session creator have to share the scaffold.
        scaffold=tf.compat.v1.train.Scaffold() if scaffold is None else scaffold,
        hooks=hooks,
        chief_only_hooks=chief_only_hooks,
        services=Services(
            save_checkpoint_secs=options.save_checkpoint_secs,
            save_summaries_steps=options.save_summaries_steps,
            log_rate_steps=LOG_STEP_COUNT_STEPS,
            mark_sessions=True,
        ),
        step_after=step_after,
        is_sync=_has_sync_hook([*hooks, *chief_only_hooks]),
    )


def _has_sync_hook(hooks: Sequence[Any]) -> bool:
    # The type of `SyncReplicasOptimizer.make_session_run_hook`'s result has no public name.
    return any("SyncReplicas" in type(hook).__name__ for hook in hooks)
