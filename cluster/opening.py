"""The opening of sessions, which waits for their peers in bounded time."""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..reasons import reason_of
from .address import parse_address, parse_master
from .deadline import Deadline, call_in_background, growing_pauses, has_ended
from .session import PREEMPTION_ERRORS, BoundedCloseSession

# Between two looks whether a session that is being opened is still needed.
_LOOK_SECS = 0.5
_PROBE_BUDGET_SECS = 0.4
_logger = logging.getLogger(__name__)


def open_session(
    target: str,
    graph: tf.Graph,
    config: Any,
    deadline: Deadline,
    make: type[BoundedCloseSession] = BoundedCloseSession,
    is_needed: Callable[[], bool] = lambda: True,
) -> BoundedCloseSession:
    """Opens a session once every peer that it needs has answered.

    Args:
        target: Master string: "" for this process alone, or "grpc://host:port".
        graph: The graph to run.
        config: A `tf.compat.v1.ConfigProto`, or None.
        deadline: How long to wait for the peers.
        make: The kind of session.
        is_needed: Called between two attempts; False ends the wait, as after a replacement.

    Returns:
        A session that has been in touch with all its peers.

    Raises:
        tf.errors.DeadlineExceededError: The wait ran out; the message names the silent peers.
        tf.errors.AbortedError, tf.errors.UnavailableError: The session is no longer needed.
        tf.errors.OpError: The peers refused, for example the graph or the configuration.
    """
    if not target:
        return make(target, graph, config)
    pauses = growing_pauses()
    while True:
        try:
            # A session that waits for its peers holds a lock of its graph. No thread can then add
            # to the graph, even after the session was given up. So it waits with another graph.
            empty = _nearly_empty_graph()
            _contact(target, empty, config, deadline, BoundedCloseSession, is_needed).close()
            return _contact(target, graph, config, deadline, make, is_needed)
        except PREEMPTION_ERRORS as error:
            if not is_needed():
                raise
            if not deadline.remaining_secs():
                raise deadline.error(_describe_silence(target, config)) from error
            _logger.info("A session could not be opened (%s); trying again.", reason_of(error))
            deadline.sleep(next(pauses))


def open_ready_session(
    target: str,
    graph: tf.Graph,
    config: Any,
    make_ready: Callable[[BoundedCloseSession], None],
    deadline: Deadline,
) -> BoundedCloseSession:
    """Opens a session and makes it ready, with a new session whenever a peer is lost meanwhile.

    Args:
        target: Master string, see `open_session`.
        graph: The graph to run.
        config: A `tf.compat.v1.ConfigProto`, or None.
        make_ready: Called with each new session; its errors close that session.
        deadline: How long to wait.

    Raises:
        tf.errors.DeadlineExceededError: The wait ran out.
        Exception: The error of `make_ready`, other than the loss of a peer.
    """
    pauses = growing_pauses()
    while True:
        session = open_session(target, graph, config, deadline)
        try:
            make_ready(session)
            return session
        except PREEMPTION_ERRORS as error:
            session.close()
            if not deadline.remaining_secs():
                raise deadline.error(f"A peer was lost: {reason_of(error)}") from error
            _logger.info("A peer was lost (%s); opening a new session.", reason_of(error))
            deadline.sleep(next(pauses))
        except BaseException:
            session.close()
            raise


def _contact(
    target: str,
    graph: tf.Graph,
    config: Any,
    deadline: Deadline,
    make: type[BoundedCloseSession],
    is_needed: Callable[[], bool],
) -> BoundedCloseSession:
    """Opens a session and contacts its peers, which it would otherwise do at its first run."""
    session = make(target, graph, config)
    # Making a callable sends the graph. `list_devices` would do, but it holds the interpreter lock.
    call = call_in_background("session-opener", lambda: session.make_callable([]))
    while not has_ended(call, min(_LOOK_SECS, deadline.remaining_secs())):
        if deadline.remaining_secs() and is_needed():
            continue
        call.add_done_callback(lambda _: session.close())
        if deadline.remaining_secs():
            raise tf.errors.AbortedError(None, None, "a peer was replaced before it answered")
        raise deadline.error(_describe_silence(target, config))
    call.result()
    return session


def _nearly_empty_graph() -> tf.Graph:
    graph = tf.Graph()
    with graph.as_default():
        tf.no_op()
    return graph


def _describe_silence(target: str, config: Any) -> str:
    """Describes the peers of a session that take no connections; or says that all take them."""
    tasks = {f"the TensorFlow server at {target}": parse_master(target)}
    cluster = config.cluster_def if config is not None else None
    if cluster is None or not cluster.job:
        cluster = _cluster_of(target)
    for job in cluster.job if cluster is not None else ():
        for index, address in job.tasks.items():
            tasks[f"{job.name}:{index} ({address})"] = address
    budget_secs = _PROBE_BUDGET_SECS / len(tasks)
    silent = [
        task for task, address in tasks.items() if address and not _answers(address, budget_secs)
    ]
    if silent:
        return f"No connection to {', '.join(silent)}: is it running?"
    return (
        f"The TensorFlow server at {target} takes connections, but not every task of its cluster "
        "answers it: are all of them running, parameter servers and chief included?"
    )


def _cluster_of(target: str) -> Any:
    """Returns the cluster of this process's server with a target; None without such a server."""
    # TensorFlow has no list of them.
    servers = (each for each in gc.get_objects() if type(each) is tf.distribute.Server)
    return next((each.server_def.cluster for each in servers if each.target == target), None)


def _answers(address: str, timeout_secs: float) -> bool:
    peer = parse_address(address)
    try:
        socket.create_connection((peer.host, peer.port), timeout_secs).close()
    except OSError:
        return False
    return True
