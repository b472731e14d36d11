"""Session creators for an ordinary, static cluster: TensorFlow's, with short and bounded waits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ..cluster.deadline import POLL_SECS, Deadline
from ..cluster.opening import open_ready_session
from ..cluster.readiness import find_missing, run_local_init, wait_until_ready
from ..cluster.session import BoundedCloseSession
from ..data_plane.graph_collections import forget_unrunnable
from ..data_plane.options import DataPlane
from ..data_plane.prepare import prepare

_logger = logging.getLogger(__name__)


class _StaticClusterSessionCreator(tf.compat.v1.train.SessionCreator):
    """Base of both session creators: finalizes the graph, and opens a session in bounded time."""

    def __init__(
        self,
        scaffold: tf.compat.v1.train.Scaffold | None,
        master: str,
        config: Any,
        max_wait_secs: float | None,
        data_plane: DataPlane | None,
        train_ops: Sequence[Any],
    ) -> None:
        self._data_plane = DataPlane() if data_plane is None else data_plane
        self._train_ops = train_ops
        self._scaffold = tf.compat.v1.train.Scaffold() if scaffold is None else scaffold
        self._master = master
        self._config = config
        self._max_wait_secs = max_wait_secs
        self._graph: tf.Graph | None = None
        self._is_prepared = False

    def create_session(self) -> BoundedCloseSession:
        """Creates a session of the default graph; later calls keep to the first call's graph."""
        if self._graph is None:
            self._graph = tf.compat.v1.get_default_graph()
        with self._graph.as_default():
            forget_unrunnable(self._graph, tf.compat.v1.GraphKeys.SUMMARIES)
            self._scaffold.finalize()
            if not self._is_prepared:
                # After the scaffold, whose saver and readiness ops have to be in the graph too.
                prepare(self._graph, self._data_plane, self._train_ops)
                self._is_prepared = True
            deadline = Deadline.after(self._max_wait_secs)
            return open_ready_session(
                self._master,
                self._graph,
                self._config,
                lambda session: self._make_ready(session, deadline),
                deadline,
            )

    def _make_ready(self, session: BoundedCloseSession, deadline: Deadline) -> None:
        raise NotImplementedError


class ChiefSessionCreator(_StaticClusterSessionCreator):
    """Creates sessions for the task that restores or initializes the model.

    Takes the arguments of `tf.compat.v1.train.ChiefSessionCreator`, and three more.

    Args:
        scaffold: Initialization ops, readiness ops and saver; made of defaults if None.
        master: "" for this process alone, or "grpc://host:port".
        config: A `tf.compat.v1.ConfigProto`, or None.
        checkpoint_dir: Where to look for the newest checkpoint; None restores nothing.
        checkpoint_filename_with_path: A checkpoint to restore, in place of `checkpoint_dir`.
        max_wait_secs: Seconds to wait for the cluster's servers; None waits without limit.
            Restoring and initializing are work, not waiting, and take the time that they need.
        data_plane: How tensors cross between tasks; the default `DataPlane` if None.
        train_ops: The ops that train, besides those in the collection `TRAIN_OP`.

    Raises:
        ValueError: Both a directory and a checkpoint are given.
    """

    def __init__(
        self,
        scaffold: tf.compat.v1.train.Scaffold | None = None,
        master: str = "",
        config: Any = None,
        checkpoint_dir: str | None = None,
        checkpoint_filename_with_path: str | None = None,
        *,
        max_wait_secs: float | None = 7200,
        data_plane: DataPlane | None = None,
        train_ops: Sequence[Any] = (),
    ) -> None:
        if checkpoint_dir and checkpoint_filename_with_path:
            raise ValueError(
                f"checkpoint_dir={checkpoint_dir!r} and checkpoint_filename_with_path="
                f"{checkpoint_filename_with_path!r} are both given: give one of them"
            )
        super().__init__(scaffold, master, config, max_wait_secs, data_plane, train_ops)
        self._checkpoint_dir = checkpoint_dir
        self._checkpoint = checkpoint_filename_with_path

    def _make_ready(self, session: BoundedCloseSession, deadline: Deadline) -> None:
        scaffold = self._scaffold
        restored = restore(session, scaffold.saver, self._checkpoint_dir, self._checkpoint)
        if not restored:
            initialize(session, scaffold)
        missing = run_local_init(session, scaffold, deadline)
        if missing is None:
            missing = find_missing(session, scaffold.ready_op, deadline)
        if missing is not None:
            done = f"The checkpoint {restored}" if restored else "Init operations"
            raise RuntimeError(
                f"{done} did not make model ready. {missing}. Have the scaffold's init_op, "
                "init_fn or local_init_op initialize them."
            )


class ReleaseThreadsHook(tf.compat.v1.train.SessionRunHook):
    """Hook that ends threads that are stuck in a call of the session when training is over.

    A synchronous chief has such a thread: its queue runner waits for gradients that will not come.
    A `MonitoredSession` waits `stop_grace_period_secs` for it, and closes the session afterwards;
    the thread then dies with a traceback. So this closes the session earlier. Its session creator
    has to make `BoundedCloseSession`s.

    Args:
        after_secs: Seconds that threads get to end by themselves; fewer than the
            `MonitoredSession`'s grace period.
    """

    def __init__(self, after_secs: float) -> None:
        self._after_secs = after_secs

    def end(self, session: BoundedCloseSession) -> None:
        """Called after the last step."""
        session.close_within(self._after_secs)


class WorkerSessionCreator(_StaticClusterSessionCreator):
    """Creates sessions for a task that waits until the chief has made the model ready.

    Takes the arguments of `tf.compat.v1.train.WorkerSessionCreator`, and three more.

    Args:
        scaffold: Readiness ops and local initialization; made of defaults if None.
        master: "" for this process alone, or "grpc://host:port".
        config: A `tf.compat.v1.ConfigProto`, or None.
        max_wait_secs: Seconds to wait for the servers and then for the model, together; None
            waits without limit.
        poll_secs: Seconds between the first two checks whether the model is ready; later ones are
            up to 1 s apart. (TensorFlow's own creator looks every 30 s.)
        data_plane: How tensors cross between tasks; the default `DataPlane` if None.
        train_ops: The ops that train, besides those in the collection `TRAIN_OP`.
    """

    def __init__(
        self,
        scaffold: tf.compat.v1.train.Scaffold | None = None,
        master: str = "",
        config: Any = None,
        max_wait_secs: float | None = 30 * 60,
        *,
        poll_secs: float = POLL_SECS,
        data_plane: DataPlane | None = None,
        train_ops: Sequence[Any] = (),
    ) -> None:
        super().__init__(scaffold, master, config, max_wait_secs, data_plane, train_ops)
        self._poll_secs = poll_secs

    def _make_ready(self, session: BoundedCloseSession, deadline: Deadline) -> None:
        wait_until_ready(session, self._scaffold, deadline, poll_secs=self._poll_secs)


def restore(
    session: tf.compat.v1.Session,
    saver: tf.compat.v1.train.Saver | None,
    checkpoint_dir: str | None,
    checkpoint: str | None = None,
) -> str | None:
    """Restores a checkpoint.

    Args:
        session: The session whose variables are restored.
        saver: Restores the variables; None restores nothing.
        checkpoint_dir: Where to look for the newest checkpoint.
        checkpoint: The checkpoint's path without suffix, in place of `checkpoint_dir`.

    Returns:
        The restored checkpoint's path without suffix, or None if there was none.

    Raises:
        tf.errors.OpError: The checkpoint cannot be read, or does not fit the model.
    """
    if saver is None:
        return None
    earlier: list[str] = []
    if not checkpoint and checkpoint_dir:
        state = tf.train.get_checkpoint_state(checkpoint_dir)
        if state and state.model_checkpoint_path:
            checkpoint, earlier = state.model_checkpoint_path, state.all_model_checkpoint_paths
    if not checkpoint:
        return None
    # Resources that a SavedModel brought into the graph have to exist before the restore.
    session.run(session.graph.get_collection("saved_model_initializers"))
    saver.restore(session, checkpoint)
    _take_over(saver, earlier)
    _logger.info("Restored the model from %s.", checkpoint)
    return checkpoint


def _take_over(saver: tf.compat.v1.train.Saver, earlier: Sequence[str]) -> None:
    """Makes a saver delete the checkpoints of earlier runs, oldest first, as it writes new ones.

    It deletes one at a time. Checkpoints of an earlier run beyond the saver's limit are all deleted
    at the next save: a program that only reads checkpoints deletes none.
    """
    limit = saver.saver_def.max_to_keep if saver.saver_def is not None else 0
    surplus = earlier[:-limit] if limit else []
    saver.recover_last_checkpoints(earlier[len(surplus) :])
    if not surplus:
        return
    save = saver.save

    def save_and_delete(*args: Any, **kwargs: Any) -> Any:
        path = save(*args, **kwargs)
        saver.save = save
        for each in surplus:
            for file in tf.io.gfile.glob(f"{each}.*"):
                tf.io.gfile.remove(file)
        return path

    saver.save = save_and_delete


def initialize(session: tf.compat.v1.Session, scaffold: tf.compat.v1.train.Scaffold) -> None:
    """Runs a scaffold's initialization: `init_op` with its feeds, then `init_fn`."""
    if scaffold.init_op is not None:
        session.run(scaffold.init_op, feed_dict=scaffold.init_feed_dict)
    if scaffold.init_fn is not None:
        scaffold.init_fn(session)
