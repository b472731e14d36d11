"""`MonitoredSession` and `SingularMonitoredSession`, which end in bounded time."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from ..cluster.session import BoundedCloseSession
from ..loops.loop import STOP_GRACE_SECS
from ..loops.static_sessions import ChiefSessionCreator
from ..tf_internals import unfinalize

# As in the loops.
RELEASE_SECS = STOP_GRACE_SECS


class _ReleasingSession:
    """Mixin with the additions of both classes to TensorFlow's, which come after it."""

    _release_secs: float
    _own_hooks: list[tf.compat.v1.train.SessionRunHook]

    def run_step_fn(self, step_fn: Callable[..., Any]) -> Any:
        """Calls `step_fn(step_context)`; see `tf.compat.v1.train.MonitoredSession.run_step_fn`.

        After a lost session was replaced, `step_context.session` is the new one.

        Args:
            step_fn: Takes one argument with the name `step_context`. It may be a
                `functools.partial` and have `*args`, `**kwargs`, and keyword-only arguments with
                defaults.

        Returns:
            The result of `step_fn`.

        Raises:
            ValueError: `step_fn` takes other arguments.
            StopIteration: `step_fn` called `step_context.request_stop()`.
        """
        arguments = _arguments_to_give(step_fn)
        if arguments not in (["step_context"], ["self", "step_context"]):
            raise ValueError(
                f"`step_fn` takes {arguments}; it has to take one argument, `step_context` (and "
                "`self` if it is a method)"
            )

        def call(step_context: Any) -> Any:
            context = self.StepContext(self._tf_sess(), step_context.run_with_hooks)  # type: ignore[attr-defined]
            return step_fn(context)

        # TensorFlow looks at the name of the argument.
        call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter("step_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        )
        return super().run_step_fn(call)  # type: ignore[misc]

    def _close_internal(self, exception_type: type[BaseException] | None = None) -> None:
        # TensorFlow's own method, through which `close` and the end of `with` go. It waits for all
        # threads before it closes the session, although only that ends some of them.
        creator = self._coordinated_creator  # type: ignore[attr-defined]
        session = creator.tf_sess
        try:
            if exception_type is None and session is not None:
                for hook in self._own_hooks:
                    hook.end(session)
        finally:
            if creator.coord is not None:
                creator.coord.request_stop()
            if isinstance(session, BoundedCloseSession):
                session.close_within(self._release_secs)
            try:
                # With an exception it leaves out the hooks, whose turn is over.
                super()._close_internal(exception_type or Exception)  # type: ignore[misc]
            finally:
                # If the session could not be replaced, TensorFlow does not know the last one.
                _close(session)

    @contextlib.contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Leaves no thread, session or finalized graph behind if this object cannot be made."""
        graph = tf.compat.v1.get_default_graph()
        was_finalized = graph.finalized
        try:
            yield
        except BaseException:
            creator = getattr(self, "_coordinated_creator", None)
            if creator is not None:
                if creator.coord is not None:
                    creator.coord.request_stop()
                _close(creator.tf_sess)
            if not was_finalized:
                unfinalize(graph)
            raise


class MonitoredSession(_ReleasingSession, tf.compat.v1.train.MonitoredSession):
    """A session with initialization, recovery and hooks.

    Takes the arguments of `tf.compat.v1.train.MonitoredSession`, and one more. It differs in that
    threads which are stuck in a call, as a synchronous chief's are, do not hold up the end for
    `stop_grace_period_secs`; that a graph whose session could not be made stays usable; and that
    `run_step_fn` hands out the current session after a recovery.

    Example::

        with MonitoredSession(hooks=[tf.compat.v1.train.StopAtStepHook(last_step=100)]) as session:
            while not session.should_stop():
                session.run(train_op)

    Args:
        session_creator: Makes the sessions; `paramserve.train.ChiefSessionCreator()` if None.
        hooks: Called around each run.
        stop_grace_period_secs: Seconds that threads get to end when the session is closed.
        release_secs: Seconds after which calls of the session that are still running in threads
            are cancelled, at most half of `stop_grace_period_secs`.

    Raises:
        RuntimeError: Not in a graph.
    """

    def __init__(
        self,
        session_creator: tf.compat.v1.train.SessionCreator | None = None,
        hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None = None,
        stop_grace_period_secs: float = 120,
        *,
        release_secs: float = RELEASE_SECS,
    ) -> None:
        check_graph("MonitoredSession")
        self._release_secs = min(release_secs, stop_grace_period_secs / 2)
        self._own_hooks = list(hooks or ())
        with self._undone_on_error():
            creator = ChiefSessionCreator() if session_creator is None else session_creator
            super().__init__(creator, self._own_hooks, stop_grace_period_secs)


class SingularMonitoredSession(_ReleasingSession, tf.compat.v1.train.SingularMonitoredSession):
    """A session with initialization and hooks, but without recovery.

    Takes the arguments of `tf.compat.v1.train.SingularMonitoredSession`, and one more; it differs
    as `MonitoredSession` does.

    Args:
        hooks: Called around each run.
        scaffold: Initialization, readiness ops and saver; made of defaults if None.
        master: "" for this process alone, or "grpc://host:port".
        config: A `tf.compat.v1.ConfigProto`, or None.
        checkpoint_dir: Where to look for the newest checkpoint; None restores nothing.
        stop_grace_period_secs: Seconds that threads get to end when the session is closed.
        checkpoint_filename_with_path: A checkpoint to restore, in place of `checkpoint_dir`.
        release_secs: See `MonitoredSession`.

    Raises:
        RuntimeError: Not in a graph.
        ValueError: Both a directory and a checkpoint are given.
    """

    def __init__(
        self,
        hooks: Sequence[tf.compat.v1.train.SessionRunHook] | None = None,
        scaffold: tf.compat.v1.train.Scaffold | None = None,
        master: str = "",
        config: Any = None,
        checkpoint_dir: str | None = None,
        stop_grace_period_secs: float = 120,
        checkpoint_filename_with_path: str | None = None,
        *,
        release_secs: float = RELEASE_SECS,
    ) -> None:
        check_graph("SingularMonitoredSession")
        self._release_secs = min(release_secs, stop_grace_period_secs / 2)
        self._own_hooks = list(hooks or ())
        with self._undone_on_error():
            creator = ChiefSessionCreator(
                scaffold, master, config, checkpoint_dir, checkpoint_filename_with_path
            )
            # TensorFlow's class takes no session creator, but its base class does.
            super(tf.compat.v1.train.SingularMonitoredSession, self).__init__(
                creator,
                self._own_hooks,
                should_recover=False,
                stop_grace_period_secs=stop_grace_period_secs,
            )


def _arguments_to_give(function: Callable[..., Any]) -> list[str]:
    """Returns the names of the arguments by position, and of keyword-only ones without default."""
    return [
        each.name
        for each in inspect.signature(function).parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        or (each.kind is each.KEYWORD_ONLY and each.default is each.empty)
    ]


def check_graph(caller: str) -> None:
    """Raises an error outside of a graph.

    Raises:
        RuntimeError: Eager execution is on here.
    """
    if tf.executing_eagerly():
        raise RuntimeError(
            f"{caller} runs a graph, and there is none (eager execution is on): build the model "
            "and make the session inside `with tf.Graph().as_default():`"
        )


def _close(session: tf.compat.v1.Session | None) -> None:
    if session is not None:
        with contextlib.suppress(tf.errors.OpError):
            session.close()
