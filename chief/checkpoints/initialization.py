"""Makes the model ready: restores the newest whole checkpoint, or runs the init ops."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ...cluster.logdir.errors import LOGDIR_ERRORS
from ...cluster.logdir.interface import LogDirectory, open_logdir
from ...cluster.session import PREEMPTION_ERRORS
from ...errors import JobFailed
from ...model.graph import TrainGraph
from ...reasons import reason_of
from ...tf_internals import whole_variable
from .files import (
    CORRUPT_FOLDER,
    STATE_FILE,
    Checkpoint,
    CorruptFile,
    drop,
    files_of,
    find_checkpoints,
    local_path,
    name_of,
    read_sidecar,
    remove_leftovers,
    set_aside,
    write_state,
)

log = logging.getLogger(__name__)

# A saver keeps a checkpoint permanently every so many hours, or more: so it keeps none.
_NEVER_HOURS = 10_000


@dataclass(frozen=True)
class _PassedOver:
    """A checkpoint that could not be restored.

    Attributes:
        step: Its global step.
        path: Its prefix in the log directory.
        reason: Why, in one line.
        is_corrupt: Whether its files are to blame, and not the model.
    """

    step: int
    path: str
    reason: str
    is_corrupt: bool


def initialize(
    built: TrainGraph,
    session: Any,
    logdir: str | LogDirectory,
    *,
    on_passed_over: Callable[[str], None] = lambda _: None,
) -> Checkpoint | None:
    """Initializes everything on the parameter servers, and the chief's own local state.

    Args:
        built: The graph.
        session: The chief's session.
        logdir: Place of the checkpoints: a path, a URL or an open log directory.
        on_passed_over: Called with a sentence for people if the restored checkpoint is not the
            newest one.

    Returns:
        The restored checkpoint; None for a fresh start.

    Raises:
        JobFailed: There are checkpoints, but none fits or none is whole; or a variable is left
            without a value.
    """
    storage = open_logdir(logdir)
    remove_leftovers(storage)
    restored = _restore_newest(built, session, storage, on_passed_over)
    if restored is None:
        log.info("no checkpoint in %s: starting afresh", storage.logdir)
        _initialize_afresh(built, session)
    session.run(built.local_init_op)
    left = [name.decode() for name in session.run(built.uninitialized)]
    if left:
        raise JobFailed(f"variables without a value after initialization: {', '.join(left[:10])}")
    return restored


def adopt(built: TrainGraph, logdir: str | LogDirectory) -> Checkpoint | None:
    """Takes over the checkpoints of an earlier chief whose model is still there.

    Nothing is restored; the saver learns of the existing checkpoints, to delete old ones in turn.

    Args:
        built: The graph.
        logdir: Place of the checkpoints: a path, a URL or an open log directory.

    Returns:
        The newest checkpoint, if there is one. Whether it can be read is not known.
    """
    storage = open_logdir(logdir)
    remove_leftovers(storage)
    found = find_checkpoints(storage)
    _tell_saver(built, storage, [step for step, _ in reversed(found)])
    if not found:
        return None
    step, path = found[0]
    return Checkpoint(path, step, storage.modified(f"{name_of(step)}.index"), 0.0)


def _initialize_afresh(built: TrainGraph, session: Any) -> None:
    scaffold = built.loop.scaffold
    session.run(built.init_op, feed_dict=scaffold.init_feed_dict)
    # An init op of the model's own does not cover variables made after it.
    left = [name.decode() for name in session.run(built.uninitialized)]
    session.run([built.init_own[name] for name in left if name in built.init_own])
    if scaffold.init_fn is not None:
        scaffold.init_fn(session)


def _restore_newest(
    built: TrainGraph, session: Any, storage: LogDirectory, on_passed_over: Callable[[str], None]
) -> Checkpoint | None:
    found = find_checkpoints(storage)
    passed_over: list[_PassedOver] = []
    for step, path in found:
        try:
            sidecar = _restore(built, session, storage, step)
        except PREEMPTION_ERRORS:
            raise  # A parameter server is gone; the checkpoint is not to blame.
        except (*LOGDIR_ERRORS, ValueError) as error:
            # Variables that it may have assigned already are overwritten by the next one, which has
            # them all.
            reason = reason_of(error)
            log.warning("checkpoint %s cannot be used: %s", path, reason)
            passed_over.append(_PassedOver(step, path, reason, _is_corrupt(error)))
            continue
        log.info("restored %s", path)
        _settle(built, storage, [s for s, _ in found], passed_over)
        if passed_over:
            on_passed_over(_describe(passed_over[0], path))
        return Checkpoint(path, step, storage.modified(f"{name_of(step)}.index"), 0.0, sidecar)
    if passed_over:
        raise JobFailed(_describe_all(storage.logdir, passed_over))
    return None


def _restore(
    built: TrainGraph, session: Any, storage: LogDirectory, step: int
) -> Mapping[str, Any] | None:
    """Restores a checkpoint; returns the job's state at that step."""
    storage.fetch(*files_of(step, storage.names()))
    _check_fit(built, local_path(storage, step))
    sidecar = read_sidecar(storage, step)
    with built.graph.as_default():  # Else the saver would restore eagerly.
        built.saver.restore(session, local_path(storage, step))
    return sidecar


def _settle(
    built: TrainGraph, storage: LogDirectory, steps: list[int], passed_over: list[_PassedOver]
) -> None:
    """Puts corrupt checkpoints out of the way; the saver will delete old ones in turn.

    Only now that another one is restored: a job that fails for want of one should fail again, and
    not start afresh, when it is started again.
    """
    corrupt = {each.step for each in passed_over if each.is_corrupt}
    whole = [step for step in reversed(steps) if step not in corrupt]
    moved = [set_aside(storage, step) for step in sorted(corrupt)]
    if any(moved):
        write_state(storage, whole)
    _tell_saver(built, storage, whole)


def _tell_saver(built: TrainGraph, storage: LogDirectory, steps: list[int]) -> None:
    """Makes the saver count checkpoints, oldest first, among those that it keeps.

    It deletes one for each that it writes. So checkpoints beyond its limit are deleted now.
    """
    limits = built.saver.saver_def
    if limits.keep_checkpoint_every_n_hours < _NEVER_HOURS:
        # Others stay permanently, if the saver keeps some.
        counted = storage.read_text(STATE_FILE) or ""
        steps = [step for step in steps if f'"{name_of(step)}"' in counted]
    if limits.max_to_keep and len(steps) > limits.max_to_keep:
        drop(storage, steps[: -limits.max_to_keep])
        steps = steps[-limits.max_to_keep :]
        write_state(storage, steps)
    built.saver.set_last_checkpoints_with_time(
        [(local_path(storage, s), storage.modified(f"{name_of(s)}.index")) for s in steps]
    )


def _is_corrupt(error: Exception) -> bool:
    """Returns whether an error means that a checkpoint's files are damaged, or partly missing."""
    if isinstance(error, tf.errors.NotFoundError):
        return "not found in checkpoint" not in str(error)  # That would be a variable.
    damaged = (CorruptFile, tf.errors.DataLossError, tf.errors.OutOfRangeError)
    # The reader of an index has no error of its own for a damaged one.
    return isinstance(error, damaged) or type(error) is tf.errors.OpError


def _describe(newest: _PassedOver, restored: str) -> str:
    what = f"is corrupt, see {CORRUPT_FOLDER}/ there" if newest.is_corrupt else "cannot be used"
    return f"the newest checkpoint {newest.path} {what} ({newest.reason}): {restored} was restored"


def _describe_all(logdir: str, passed_over: list[_PassedOver]) -> str:
    all_corrupt = all(each.is_corrupt for each in passed_over)
    why = "all of them are corrupt." if all_corrupt else "did the model change?"
    newest = passed_over[0]
    return (
        f"no checkpoint in {logdir} can be restored: {why} Give another --logdir to start afresh. "
        f"Newest: {newest.path}: {newest.reason}"
    )


def _check_fit(built: TrainGraph, path: str) -> None:
    """Raises ValueError if a checkpoint is of another model.

    TensorFlow restores a tensor into a variable of another shape without a word.
    """
    there = tf.compat.v1.train.NewCheckpointReader(path).get_variable_to_shape_map()
    for variable in built.graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES):
        usual, shape = _name_and_shape(variable)
        name = built.job_saver.name(usual)
        if name not in there:
            raise ValueError(f"it has no variable {name!r}")
        if there[name] != shape:
            raise ValueError(f"{name!r} has the shape {there[name]} there, {shape} in the model")


def _name_and_shape(variable: Any) -> tuple[str, list[int]]:
    """Returns both as in a checkpoint, where partitions of a variable are one tensor."""
    return whole_variable(variable) or (variable.op.name, variable.shape.as_list())
