"""Run of a loop in an ordinary, static cluster, or in this process alone: no chief service."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..cluster.address import parse_master
from ..data_plane.lossy.passes import transfer_hooks
from ..data_plane.options import DataPlane
from ..reasons import reason_of
from ..tf_internals import close_event_writers, unfinalize
from .hooks import BASENAME, CheckpointHook, SessionMarksHook, StepRateHook, SummaryHook
from .loop import STOP_GRACE_SECS, SYNC_STOP_GRACE_SECS, Loop, run_loop
from .static_sessions import ChiefSessionCreator, ReleaseThreadsHook, WorkerSessionCreator

v1 = tf.compat.v1
_logger = logging.getLogger(__name__)

# Event files that stay open for the next call on their directory.
OPEN_WRITERS = 8
_KEYS = tf.compat.v1.GraphKeys
_SCAFFOLD_KEYS = (
    *(_KEYS.INIT_OP, _KEYS.READY_OP, _KEYS.READY_FOR_LOCAL_INIT_OP),
    *(_KEYS.LOCAL_INIT_OP, _KEYS.SUMMARY_OP, _KEYS.SAVERS),
)
# The kinds of elements in a scaffold.
_MODEL_KEYS = (
    *(_KEYS.GLOBAL_VARIABLES, _KEYS.LOCAL_VARIABLES),
    *(_KEYS.TABLE_INITIALIZERS, _KEYS.SUMMARIES, _KEYS.SAVEABLE_OBJECTS),
)


@dataclass(frozen=True, kw_only=True)
class StaticPlace:
    """The place of a loop in a static cluster.

    Attributes:
        logdir: The directory from which the chief restores and to which it writes; None or "":
            none.
        master: Master string of this task's server, or "".
        is_chief: Whether this task initializes, restores, saves and summarizes.
        session_config: A `tf.compat.v1.ConfigProto`, or None.
        max_wait_secs: Seconds to wait for servers, and for the chief; None waits without limit.
        data_plane: How tensors cross between tasks; the default `DataPlane` if None.
    """

    logdir: str | None
    master: str
    is_chief: bool
    session_config: Any = None
    max_wait_secs: float | None = 7200
    data_plane: DataPlane | None = None


def check_place(master: str) -> None:
    """Raises an error if no loop can run here.

    Raises:
        ValueError: `master` is malformed.
        RuntimeError: There is no graph.
    """
    parse_master(master)
    if tf.executing_eagerly():
        raise RuntimeError(
            "train() runs a graph, and there is none: build the model and call train() inside "
            "`with tf.Graph().as_default():`"
        )


def run_in_static_cluster(loop: Loop, place: StaticPlace) -> Any:
    """Runs a loop on the default graph, which is finalized only meanwhile.

    The chief restores the newest checkpoint of the log directory, or else initializes; the others
    wait for it. When an error ends the loop, the chief first saves a checkpoint. After a NaN it
    does so without a mention in the directory's `checkpoint` file, so that the next run does not
    start from it.

    Args:
        loop: The loop.
        place: The place of this task.

    Returns:
        The loop's value, None if it made no step.
    """
    grace_secs = SYNC_STOP_GRACE_SECS if loop.is_sync else STOP_GRACE_SECS
    hooks = [*loop.hooks, ReleaseThreadsHook(grace_secs)]
    logdir = place.logdir if place.is_chief else None
    if place.is_chief:
        hooks = [*loop.chief_only_hooks, *_service_hooks(loop, logdir), *hooks]
    hooks = [*transfer_hooks(place.data_plane or DataPlane()), *hooks]

    def save(session: tf.compat.v1.Session, error: BaseException) -> None:
        if logdir and _saves(loop):
            _save_after(error, session, loop.scaffold, logdir)

    with _tidied_up(v1.get_default_graph()), _flushed(_writer(loop, logdir) if logdir else None):
        return run_loop(loop, _session_creator(loop, place), hooks, on_error=save)


def _session_creator(loop: Loop, place: StaticPlace) -> tf.compat.v1.train.SessionCreator:
    common: dict[str, Any] = {
        "max_wait_secs": place.max_wait_secs,
        "data_plane": place.data_plane,
        "train_ops": loop.train_ops,
    }
    where = loop.scaffold, place.master, place.session_config
    if place.is_chief:
        return ChiefSessionCreator(*where, checkpoint_dir=place.logdir, **common)
    return WorkerSessionCreator(*where, **common)


def _saves(loop: Loop) -> bool:
    return bool(loop.services.save_checkpoint_secs) or loop.services.save_last_checkpoint


def _service_hooks(loop: Loop, logdir: str | None) -> list[tf.compat.v1.train.SessionRunHook]:
    """Returns the hooks with which the chief writes to `logdir`, in the order in which they run."""
    if not logdir:
        return []
    services, scaffold, step_after = loop.services, loop.scaffold, loop.step_after
    global_step = v1.train.get_global_step()
    hooks: list[tf.compat.v1.train.SessionRunHook] = []
    writer = _writer(loop, logdir)
    if writer is not None:
        if services.mark_sessions:
            hooks.append(SessionMarksHook(writer, global_step))
        if timer := _timer(services.log_rate_steps, services.log_rate_secs):
            hooks.append(StepRateHook(timer, writer, global_step, step_after))
        if timer := _timer(services.save_summaries_steps, services.save_summaries_secs):

            def write(step: int, summary: bytes) -> None:
                writer.add_summary(summary, step)

            hooks.append(SummaryHook(lambda: scaffold.summary_op, step_after, timer, write))
    if _saves(loop):
        secs = services.save_checkpoint_secs
        hooks.append(CheckpointHook(scaffold, logdir, secs, global_step, step_after, writer))
    return hooks


def _writer(loop: Loop, logdir: str) -> Any:
    if not loop.services.writes_events:
        return None
    return loop.services.summary_writer or v1.summary.FileWriterCache.get(logdir)


def _timer(steps: float | None, secs: float | None) -> Any:
    """Returns a timer of either; None if neither is given, or positive."""
    steps, secs = (each if each is not None and each > 0 else None for each in (steps, secs))
    return v1.train.SecondOrStepTimer(secs, steps) if steps or secs else None


def _save_after(
    error: BaseException,
    session: tf.compat.v1.Session,
    scaffold: tf.compat.v1.train.Scaffold,
    logdir: str,
) -> None:
    """Saves the model after an error of training; a second error is only logged."""
    try:
        step = int(session.run(v1.train.get_global_step(session.graph)))
        path = tf.io.gfile.join(logdir, BASENAME)
        with session.graph.as_default():
            saved = scaffold.saver.save(
                session, path, global_step=step, write_state=not _tells_of_nan(error)
            )
        _logger.info("Saved %s after %s.", saved, type(error).__name__)
    except (tf.errors.OpError, RuntimeError, ValueError, OSError) as second:
        _logger.error(
            "No checkpoint could be saved after %s: %s", type(error).__name__, reason_of(second)
        )


def _tells_of_nan(error: BaseException) -> bool:
    if isinstance(error, v1.train.NanLossDuringTrainingError):
        return True
    # The message of `tf.debugging.check_numerics`.
    return isinstance(error, tf.errors.InvalidArgumentError) and "Tensor had " in error.message


@contextlib.contextmanager
def _tidied_up(graph: tf.Graph) -> Iterator[None]:
    """Restores the graph's former state, however training ends."""
    was_finalized = graph.finalized
    made = _forget_outdated(graph)
    before = {key: set(map(id, graph.get_collection(key))) for key in _SCAFFOLD_KEYS}
    try:
        yield
    finally:
        for key in _SCAFFOLD_KEYS:
            made += [(key, op) for op in graph.get_collection(key) if id(op) not in before[key]]
        # A `MonitoredSession` does this when it ends, but not when it could not begin.
        if not was_finalized:
            unfinalize(graph)


def _forget_outdated(graph: tf.Graph) -> list[tuple[str, Any]]:
    """Makes a scaffold build its ops again if the model has grown since the last training.

    It puts them into collections of the graph, and would take them from there, without the
    variables and summaries that were made in between.

    Returns:
        Where to note down, with their collections, the ops that the scaffold makes.
    """
    # Collections with a key that is no string are not exported with the graph.
    made: list[tuple[str, Any]] = graph.get_collection_ref(("paramserve", "scaffold_ops"))
    sizes = graph.get_collection_ref(("paramserve", "model_sizes"))
    sizes_now = [len(graph.get_collection(key)) for key in _MODEL_KEYS]
    if sizes != sizes_now:
        outdated = {id(op) for _, op in made}
        for key in _SCAFFOLD_KEYS:
            collection = graph.get_collection_ref(key)
            collection[:] = [op for op in collection if id(op) not in outdated]
        made.clear()
        sizes[:] = sizes_now
    return made


@contextlib.contextmanager
def _flushed(writer: Any) -> Iterator[None]:
    """Writes pending events to disk, however training ends."""
    try:
        yield
    finally:
        if writer is not None:
            writer.flush()
        # A process that trains in many directories would collect threads and open files.
        close_event_writers(OPEN_WRITERS)
