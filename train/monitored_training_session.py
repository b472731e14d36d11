"""`MonitoredTrainingSession`: a monitored session with the hooks that training needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf

from ..data_plane.lossy.passes import transfer_hooks
from ..data_plane.options import DataPlane
from ..loops.static_sessions import ChiefSessionCreator, WorkerSessionCreator
from .functions import get_global_step, get_or_create_global_step
from .hooks import CheckpointSaverHook
from .monitored_session import RELEASE_SECS, MonitoredSession, check_graph

_DEFAULT: Final[Any] = object()

Hooks = Sequence[tf.compat.v1.train.SessionRunHook] | None


class _TrainingSession(MonitoredSession):
    """A monitored session that leaves its events on disk, however it ends."""

    def __init__(
        self,
        creator: Any,
        hooks: Any,
        stop_grace_period_secs: float,
        release_secs: float,
        dirs: Any,
    ) -> None:
        self._event_dirs = dirs
        try:
            super().__init__(creator, hooks, stop_grace_period_secs, release_secs=release_secs)
        except BaseException:
            self._flush()
            raise

    def _close_internal(self, exception_type: type[BaseException] | None = None) -> None:
        try:
            super()._close_internal(exception_type)
        finally:
            self._flush()

    def _flush(self) -> None:
        for directory in self._event_dirs:
            tf.compat.v1.summary.FileWriterCache.get(directory).flush()


def MonitoredTrainingSession(
    master: str = "",
    is_chief: bool = True,
    checkpoint_dir: str | None = None,
    scaffold: tf.compat.v1.train.Scaffold | None = None,
    hooks: Hooks = None,
    chief_only_hooks: Hooks = None,
    save_checkpoint_secs: float | None = _DEFAULT,
    save_summaries_steps: int | None = _DEFAULT,
    save_summaries_secs: float | None = _DEFAULT,
    config: Any = None,
    stop_grace_period_secs: float = 120,
    log_step_count_steps: int | None = 100,
    max_wait_secs: float | None = 7200,
    save_checkpoint_steps: int | None = _DEFAULT,
    summary_dir: str | None = None,
    save_graph_def: bool = True,
    *,
    release_secs: float = RELEASE_SECS,
    data_plane: DataPlane | None = None,
) -> MonitoredSession:
    """Makes a `MonitoredSession` for training.

    Takes the arguments of `tf.compat.v1.train.MonitoredTrainingSession`, and two more. It differs
    in that a worker which comes before its chief looks again after 0.1 s and not after 30 s; that
    the chief waits for its servers in bounded time too; that the end of synchronous training does
    not take `stop_grace_period_secs`; and that events are on disk when it ends, also by an error.

    Args:
        master: "" for this process alone, or "grpc://host:port".
        is_chief: Whether this task restores or initializes, saves and summarizes.
        checkpoint_dir: Directory to which the chief saves, and from which it resumes.
        scaffold: Initialization, readiness, summary ops and saver; made of defaults if None.
        hooks: Hooks of this task, after those that the chief adds.
        chief_only_hooks: Hooks that run before all others in the chief, and not in other tasks.
        save_checkpoint_secs: Seconds between checkpoints; 600 if neither this nor
            `save_checkpoint_steps` is given. None for both saves none.
        save_summaries_steps: Global steps between summaries; 100 if neither this nor
            `save_summaries_secs` is given. None for both writes none.
        save_summaries_secs: Seconds between summaries.
        config: A `tf.compat.v1.ConfigProto`, or None.
        stop_grace_period_secs: Seconds that threads get to end when the session is closed.
        log_step_count_steps: Global steps between two values of `global_step/sec`; None or 0
            writes none.
        max_wait_secs: Seconds to wait for the servers and, in other tasks than the chief, for the
            model; None waits without limit.
        save_checkpoint_steps: Global steps between checkpoints.
        summary_dir: Directory of the summaries; `checkpoint_dir` if None.
        save_graph_def: Whether to write `graph.pbtxt` and a meta graph with each checkpoint.
        release_secs: See `MonitoredSession`.
        data_plane: How tensors cross between tasks; the default `DataPlane` if None.

    Returns:
        The session, a context manager.

    Raises:
        RuntimeError: Not in a graph, or no global step although something is to be saved.
        tf.errors.DeadlineExceededError: The servers or the model were not ready in time.
    """
    check_graph("MonitoredTrainingSession")
    # Hooks and session creator have to share the scaffold.
    scaffold = tf.compat.v1.train.Scaffold() if scaffold is None else scaffold
    all_hooks = [*transfer_hooks(data_plane or DataPlane()), *(hooks or ())]
    if not is_chief:
        worker = WorkerSessionCreator(
            scaffold, master, config, max_wait_secs, data_plane=data_plane
        )
        return _TrainingSession(worker, all_hooks, stop_grace_period_secs, release_secs, ())
    summary_dir = summary_dir or checkpoint_dir
    summary_steps, summary_secs = _periods(save_summaries_steps, save_summaries_secs, (100, None))
    save_steps, save_secs = _periods(save_checkpoint_steps, save_checkpoint_secs, (None, 600))
    saving = [
        *_summary_hooks(scaffold, summary_dir, log_step_count_steps, summary_steps, summary_secs),
        *_checkpoint_hooks(scaffold, checkpoint_dir, save_steps, save_secs, save_graph_def),
    ]
    if saving and get_global_step() is not None:
        # For TensorFlow's hooks, which find no resource variable by its name.
        get_or_create_global_step()
    event_dirs = {directory for directory in (summary_dir, checkpoint_dir) if directory and saving}
    return _TrainingSession(
        ChiefSessionCreator(
            scaffold,
            master,
            config,
            checkpoint_dir=checkpoint_dir,
            max_wait_secs=max_wait_secs,
            data_plane=data_plane,
        ),
        [*(chief_only_hooks or ()), *saving, *all_hooks],
        stop_grace_period_secs,
        release_secs,
        event_dirs,
    )


def _periods(
    steps: int | None, secs: float | None, default: tuple[int | None, float | None]
) -> tuple[int | None, float | None]:
    """Returns the period in steps and that in seconds: a given one turns the default off."""
    if steps is _DEFAULT and secs is _DEFAULT:
        return default
    return None if steps is _DEFAULT else steps, None if secs is _DEFAULT else secs


def _summary_hooks(
    scaffold: tf.compat.v1.train.Scaffold,
    directory: str | None,
    count_steps: int | None,
    steps: int | None,
    secs: float | None,
) -> list[tf.compat.v1.train.SessionRunHook]:
    hooks: list[tf.compat.v1.train.SessionRunHook] = []
    if not directory:
        return hooks
    train = tf.compat.v1.train
    if _is_on(count_steps):
        hooks.append(train.StepCounterHook(every_n_steps=count_steps, output_dir=directory))
    if _is_on(steps) or _is_on(secs):
        hooks.append(
            train.SummarySaverHook(
                save_steps=steps, save_secs=secs, output_dir=directory, scaffold=scaffold
            )
        )
    return hooks


def _checkpoint_hooks(
    scaffold: tf.compat.v1.train.Scaffold,
    directory: str | None,
    steps: int | None,
    secs: float | None,
    save_graph_def: bool,
) -> list[tf.compat.v1.train.SessionRunHook]:
    if not directory or not (_is_on(steps) or _is_on(secs)):
        return []
    return [
        CheckpointSaverHook(
            directory,
            save_secs=secs,
            save_steps=steps,
            scaffold=scaffold,
            save_graph_def=save_graph_def,
        )
    ]


def _is_on(period: float | None) -> bool:
    return bool(period and period > 0)
