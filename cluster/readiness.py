"""The readiness of a model on its parameter servers: what is missing, and the wait for it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ..reasons import reason_of
from .deadline import POLL_SECS, Deadline, growing_pauses

_MIN_ANSWER_SECS = 0.8
_logger = logging.getLogger(__name__)


def find_missing(session: tf.compat.v1.Session, ready_op: Any, deadline: Deadline) -> str | None:
    """Runs a readiness op of a scaffold.

    Args:
        session: The session to ask.
        ready_op: Gives the names of uninitialized variables, a string tensor of shape [n]; None is
            always ready.
        deadline: How long to wait for the answer.

    Returns:
        The missing parts, or None if there are none.

    Raises:
        tf.errors.DeadlineExceededError: No answer came.
    """
    if ready_op is None:
        return None
    try:
        names = session.run(ready_op, options=_run_options(deadline))
    except tf.errors.FailedPreconditionError as error:
        # Reading a variable before its initialization is an answer too.
        if "uninitialized" not in error.message:
            raise
        return reason_of(error)
    except tf.errors.DeadlineExceededError as error:
        raise deadline.error("The cluster did not say whether the model is ready.") from error
    # An op without a value, or with numbers, has nothing to complain about.
    if names is None or np.issubdtype(names.dtype, np.number) or names.size == 0:
        return None
    missing = [name.decode() for name in names.ravel()]
    return f"Variables not initialized: {_describe_places(session.graph, missing)}"


def _describe_places(graph: tf.Graph, names: list[str]) -> str:
    """Names variables and their devices; one on another device than in the chief stays empty."""
    devices = {name: _device_of(graph, name) for name in names}
    if not any(devices.values()):
        return ", ".join(names)
    nowhere = "no device in particular"
    return ", ".join(f"{name} on {devices[name] or nowhere}" for name in names)


def _device_of(graph: tf.Graph, name: str) -> str:
    try:
        return str(graph.get_operation_by_name(name).device)
    except (KeyError, ValueError):
        return ""


def run_local_init(
    session: tf.compat.v1.Session, scaffold: tf.compat.v1.train.Scaffold, deadline: Deadline
) -> str | None:
    """Initializes this task's own variables and tables, if the shared ones are ready for it.

    Returns:
        The missing parts, or None when it is done.
    """
    if scaffold.local_init_op is None:
        return None
    missing = find_missing(session, scaffold.ready_for_local_init_op, deadline)
    if missing is None:
        session.run(scaffold.local_init_op, feed_dict=scaffold.local_init_feed_dict)
    return missing


def wait_until_ready(
    session: tf.compat.v1.Session,
    scaffold: tf.compat.v1.train.Scaffold,
    deadline: Deadline,
    *,
    poll_secs: float = POLL_SECS,
) -> None:
    """Waits until another task has initialized the model, and runs the local initialization.

    Args:
        session: A session of the same cluster.
        scaffold: The model's finalized scaffold.
        deadline: How long to wait.
        poll_secs: Seconds between the first two checks; later ones are up to 1 s apart.

    Raises:
        tf.errors.DeadlineExceededError: The wait ran out; the message names the missing parts.
    """

    def poll(look: Callable[[], str | None]) -> None:
        pauses = growing_pauses(poll_secs)
        while (missing := look()) is not None:
            if not deadline.remaining_secs():
                raise deadline.error(
                    f"{missing}. Is the chief running, and does it have them on the same devices?"
                )
            _logger.debug("Waiting for the model to be ready. %s", missing)
            deadline.sleep(next(pauses))

    poll(lambda: run_local_init(session, scaffold, deadline))
    poll(lambda: find_missing(session, scaffold.ready_op, deadline))


def _run_options(deadline: Deadline) -> Any:
    remaining_secs = deadline.remaining_secs()
    if math.isinf(remaining_secs):
        return None
    # The last check comes when the wait is over, and needs time for its answer as well.
    timeout_secs = max(remaining_secs, _MIN_ANSWER_SECS)
    return tf.compat.v1.RunOptions(timeout_in_ms=int(timeout_secs * 1000))
