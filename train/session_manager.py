"""`SessionManager`: sessions that are initialized, restored, or waited for, in bounded time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..cluster.deadline import POLL_SECS, Deadline, growing_pauses
from ..cluster.opening import open_ready_session
from ..cluster.readiness import find_missing
from ..cluster.session import BoundedCloseSession
from ..data_plane.lossy.local_state import start as start_local_state
from ..data_plane.lossy.passes import check_without_hooks
from ..data_plane.options import DataPlane
from ..data_plane.prepare import prepare
from ..loops.static_sessions import restore

_logger = logging.getLogger(__name__)


class SessionManager(tf.compat.v1.train.SessionManager):
    """Creator of sessions with a model that it restores or initializes, or waits for.

    Takes the arguments of `tf.compat.v1.train.SessionManager`. It checks whether the model is ready
    after 0.1 s, not after 30 s, and bounds its waits for servers. The `close` of its sessions does
    not block when a peer is dead.

    Example::

        with tf.Graph().as_default():
            train_op = build_model()
            manager = SessionManager(ready_op=tf.compat.v1.report_uninitialized_variables())
            session = manager.prepare_session(
                "", tf.compat.v1.global_variables_initializer(), tf.compat.v1.train.Saver(),
                checkpoint_dir="/tmp/model",
            )
            session.run(train_op)

    Args:
        local_init_op: Run in each new session: local variables and tables. None runs nothing.
        ready_op: Gives the names of uninitialized variables, a string tensor of shape [n]; None
            makes no check.
        ready_for_local_init_op: The same, checked before `local_init_op`.
        graph: The graph to run; the default graph if None.
        recovery_wait_secs: Seconds between the first two checks whether the model, or a checkpoint,
            is there; later ones are up to 1 s apart, or this if it is more.
        local_init_run_options: A `tf.compat.v1.RunOptions` for `local_init_op`, or None.
        local_init_feed_dict: Feeds of `local_init_op`, or None.
        data_plane: How tensors cross between tasks; the default `DataPlane` if None.

    Raises:
        ValueError: `ready_for_local_init_op` is given without `local_init_op`.
    """

    def __init__(
        self,
        local_init_op: Any = None,
        ready_op: Any = None,
        ready_for_local_init_op: Any = None,
        graph: tf.Graph | None = None,
        recovery_wait_secs: float = POLL_SECS,
        local_init_run_options: Any = None,
        local_init_feed_dict: Any = None,
        *,
        data_plane: DataPlane | None = None,
    ) -> None:
        graph = tf.compat.v1.get_default_graph() if graph is None else graph
        super().__init__(
            local_init_op,
            ready_op,
            ready_for_local_init_op,
            graph,
            recovery_wait_secs,
            local_init_run_options,
            local_init_feed_dict,
        )
        self._run_graph = graph
        self._data_plane: DataPlane | None = DataPlane() if data_plane is None else data_plane
        check_without_hooks(self._data_plane)
        self._local_init = local_init_op
        self._local_init_arguments = (local_init_feed_dict, local_init_run_options)
        self._ready = ready_op
        self._ready_for_local_init = ready_for_local_init_op
        self._poll_secs = recovery_wait_secs

    def prepare_session(
        self,
        master: str,
        init_op: Any = None,
        saver: tf.compat.v1.train.Saver | None = None,
        checkpoint_dir: str | None = None,
        checkpoint_filename_with_path: str | None = None,
        wait_for_checkpoint: bool = False,
        max_wait_secs: float | None = 7200,
        config: Any = None,
        init_feed_dict: Any = None,
        init_fn: Callable[[tf.compat.v1.Session], Any] | None = None,
    ) -> BoundedCloseSession:
        """Opens a session and makes the model ready: restores a checkpoint, or initializes.

        Args:
            master: "" for this process alone, or "grpc://host:port".
            init_op: Initializes the model if no checkpoint was restored.
            saver: The saver that restores; None restores nothing.
            checkpoint_dir: Directory whose newest checkpoint is restored.
            checkpoint_filename_with_path: A checkpoint to restore, in place of `checkpoint_dir`.
            wait_for_checkpoint: Whether to wait until `checkpoint_dir` has a checkpoint.
            max_wait_secs: Seconds to wait for servers and for a checkpoint; None: without limit.
            config: A `tf.compat.v1.ConfigProto`, or None.
            init_feed_dict: Feeds of `init_op`.
            init_fn: Called with the session after `init_op`.

        Raises:
            RuntimeError: Nothing was restored and there is nothing to initialize with, or
                variables are uninitialized afterwards.
            ValueError: Both a directory and a checkpoint are given.
            tf.errors.DeadlineExceededError: The servers did not answer in time.
        """
        _check_one_source(checkpoint_dir, checkpoint_filename_with_path)
        deadline = Deadline.after(max_wait_secs)
        source = (checkpoint_dir, checkpoint_filename_with_path)

        def make_ready(session: BoundedCloseSession) -> None:
            if not self._restore(session, saver, *source, wait_for_checkpoint, deadline):
                if init_op is None and init_fn is None and self._local_init is None:
                    raise RuntimeError(
                        "Model is not initialized and no init_op or init_fn or local_init_op was "
                        "given: pass one of them, or a saver and a directory with a checkpoint"
                    )
                if init_op is not None:
                    session.run(init_op, feed_dict=init_feed_dict)
                if init_fn is not None:
                    init_fn(session)
            missing = self._find_missing(session, deadline)
            if missing is not None:
                names = [getattr(op, "name", op) for op in (init_op, init_fn, self._local_init)]
                raise RuntimeError(
                    f"Init operations did not make model ready{missing} Init op: {names[0]}, "
                    f"init fn: {names[1]}, local_init_op: {names[2]}."
                )

        return self._open(master, config, make_ready, deadline)

    def recover_session(
        self,
        master: str,
        saver: tf.compat.v1.train.Saver | None = None,
        checkpoint_dir: str | None = None,
        checkpoint_filename_with_path: str | None = None,
        wait_for_checkpoint: bool = False,
        max_wait_secs: float | None = 7200,
        config: Any = None,
    ) -> tuple[BoundedCloseSession, bool]:
        """Opens a session and restores a checkpoint if there is one; arguments as above.

        Returns:
            The session, and whether a checkpoint was restored and made the model ready.

        Raises:
            ValueError: Both a directory and a checkpoint are given.
            tf.errors.DeadlineExceededError: The servers did not answer in time.
        """
        _check_one_source(checkpoint_dir, checkpoint_filename_with_path)
        deadline = Deadline.after(max_wait_secs)
        source = (checkpoint_dir, checkpoint_filename_with_path)
        ready = False

        def make_ready(session: BoundedCloseSession) -> None:
            nonlocal ready
            restored = self._restore(session, saver, *source, wait_for_checkpoint, deadline)
            missing = self._find_missing(session, deadline)
            ready = bool(restored) and missing is None
            if restored and missing is not None:
                _logger.info("%s did not make model ready%s", restored, missing)

        session = self._open(master, config, make_ready, deadline)
        return session, ready

    def wait_for_session(
        self, master: str, config: Any = None, max_wait_secs: float | None = float("inf")
    ) -> BoundedCloseSession:
        """Opens a session and waits until another task has made the model ready.

        Args:
            master: "" for this process alone, or "grpc://host:port".
            config: A `tf.compat.v1.ConfigProto`, or None.
            max_wait_secs: Seconds to wait; None or infinity waits without limit.

        Raises:
            tf.errors.DeadlineExceededError: The wait ran out; the message says what was missing.
        """
        deadline = Deadline.after(max_wait_secs)

        def wait_until_ready(session: BoundedCloseSession) -> None:
            pauses = growing_pauses(self._poll_secs)
            while (missing := self._find_missing(session, deadline)) is not None:
                if not deadline.remaining_secs():
                    raise deadline.error(f"The model is not ready{missing} Is the chief running?")
                deadline.sleep(next(pauses))

        return self._open(master, config, wait_until_ready, deadline)

    def _open(
        self,
        master: str,
        config: Any,
        make_ready: Callable[[BoundedCloseSession], None],
        deadline: Deadline,
    ) -> BoundedCloseSession:
        if self._data_plane is not None:
            prepare(self._run_graph, self._data_plane)
            self._data_plane = None  # Once is enough.
        session = open_ready_session(master, self._run_graph, config, make_ready, deadline)
        start_local_state(session)
        return session

    def _restore(
        self,
        session: BoundedCloseSession,
        saver: tf.compat.v1.train.Saver | None,
        checkpoint_dir: str | None,
        checkpoint: str | None,
        wait_for_checkpoint: bool,
        deadline: Deadline,
    ) -> str | None:
        """Restores a checkpoint and returns its path, or None."""
        pauses = growing_pauses(self._poll_secs)
        while True:
            restored = restore(session, saver, checkpoint_dir, checkpoint)
            has_to_wait = wait_for_checkpoint and saver is not None and checkpoint_dir
            if restored or not has_to_wait or not deadline.remaining_secs():
                return restored
            deadline.sleep(next(pauses))

    def _find_missing(self, session: BoundedCloseSession, deadline: Deadline) -> str | None:
        """Runs the local initialization if possible, and names the missing parts of the model."""
        if self._local_init is not None:
            missing = find_missing(session, self._ready_for_local_init, deadline)
            if missing is not None:
                return f" for local_init. {missing}."
            feed_dict, options = self._local_init_arguments
            session.run(self._local_init, feed_dict=feed_dict, options=options)
        missing = find_missing(session, self._ready, deadline)
        return None if missing is None else f". {missing}."


def _check_one_source(checkpoint_dir: str | None, checkpoint: str | None) -> None:
    if checkpoint_dir and checkpoint:
        raise ValueError(
            f"checkpoint_dir={checkpoint_dir!r} and checkpoint_filename_with_path={checkpoint!r} "
            "are both given: give one of them"
        )
