"""Makes the model ready: restores the newest whole checkpoint, or runs the init ops."""

from __future__ import annotations

import logging
import re
from typing import Any

import tensorflow as tf

from ..cluster.session import PREEMPTION_ERRORS
from ..errors import JobFailed, first_line
from ..loops.service_hooks import BASENAME
from ..model.graph import TrainGraph

log = logging.getLogger(__name__)

_INDEX = re.compile(re.escape(BASENAME) + r"-(\d+)\.index$")


def find_checkpoints(logdir: str) -> list[tuple[int, str]]:
    """`(global step, path)` of the checkpoints in a directory, newest first.

    TensorFlow writes a checkpoint's index last and renames it into place, so what has an index
    was written to its end.
    """
    if not tf.io.gfile.isdir(logdir):
        return []
    found = (_INDEX.search(name) for name in tf.io.gfile.listdir(logdir))
    steps = sorted((int(match.group(1)) for match in found if match), reverse=True)
    return [(step, tf.io.gfile.join(logdir, f"{BASENAME}-{step}")) for step in steps]


def initialize(built: TrainGraph, session: Any, logdir: str) -> str | None:
    """Initializes everything on the parameter servers, and the chief's own local state.

    Args:
        built: The graph.
        session: The chief's session.
        logdir: Where checkpoints are.

    Returns:
        Path of the checkpoint that was restored; None for a fresh start.

    Raises:
        JobFailed: There are checkpoints, but none fits or none is whole; or a variable is left
            without a value.
    """
    restored = _restore_newest(built, session, logdir)
    if restored is None:
        log.info("no checkpoint in %s: starting afresh", logdir)
        _initialize_afresh(built, session)
    session.run(built.local_init_op)
    left = [name.decode() for name in session.run(built.uninitialized)]
    if left:
        raise JobFailed(f"variables without a value after initialization: {', '.join(left[:10])}")
    return restored


def _initialize_afresh(built: TrainGraph, session: Any) -> None:
    scaffold = built.loop.scaffold
    session.run(built.init_op, feed_dict=scaffold.init_feed_dict)
    # An init op of the model's own knows nothing of the service's variables.
    for name in session.run(built.uninitialized):
        if name.decode() in built.init_own:
            session.run(built.init_own[name.decode()])
    if scaffold.init_fn is not None:
        scaffold.init_fn(session)


def _restore_newest(built: TrainGraph, session: Any, logdir: str) -> str | None:
    checkpoints = find_checkpoints(logdir)
    reasons = []
    for _, path in checkpoints:
        try:
            _check_fit(built, path)
            with built.graph.as_default():  # Else the saver would restore eagerly.
                built.saver.restore(session, path)
        except PREEMPTION_ERRORS:
            raise  # A parameter server is gone; the checkpoint is not to blame.
        except (tf.errors.OpError, ValueError) as error:
            reason = first_line(error)
            log.warning("checkpoint %s cannot be used: %s", path, reason)
            reasons.append(f"{path}: {reason}")
            continue
        log.info("restored %s", path)
        built.saver.recover_last_checkpoints([p for _, p in reversed(checkpoints)])
        return path
    if reasons:
        raise JobFailed(
            f"no checkpoint in {logdir} can be restored; did the model change? Give another "
            f"--logdir to start afresh. Newest: {reasons[0]}"
        )
    return None


def _check_fit(built: TrainGraph, path: str) -> None:
    """Raises ValueError if a checkpoint is of another model.

    TensorFlow restores a tensor into a variable of another shape without a word.
    """
    there = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    for variable in built.graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES):
        name, shape = _name_and_shape(variable)
        if name not in there:
            raise ValueError(f"it has no variable {name!r}")
        if there[name] != shape:
            raise ValueError(f"{name!r} has the shape {there[name]} there, {shape} in the model")


def _name_and_shape(variable: Any) -> tuple[str, list[int]]:
    """As they are in a checkpoint, where the pieces of a partitioned variable are one tensor."""
    piece = getattr(variable, "_save_slice_info", None)
    if piece is not None:
        return piece.full_name, list(piece.full_shape)
    return variable.op.name, variable.shape.as_list()
