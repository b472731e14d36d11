"""Sessions that can be dropped when a peer is dead.

TensorFlow's own sessions block for as long as a peer is gone, in three places: when they first
speak to the cluster, when they are closed, and when Python destroys them. Here each of these is
bounded, so that a worker can drop a broken session and open the next one.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import tensorflow as tf

from ..reasons import note_op
from ..tf_internals import make_registered_run
from .deadline import call_in_background, has_ended
from .repeated_runs import RepeatedRuns

CLOSE_GRACE_SECS = 2.0
# Errors of a session whose peer is gone, or has restarted with another incarnation.
PREEMPTION_ERRORS = (tf.errors.AbortedError, tf.errors.UnavailableError)

_logger = logging.getLogger(__name__)


class BoundedCloseSession(tf.compat.v1.Session):
    """A session whose `close` returns within seconds, even if a peer is dead.

    TensorFlow's own close waits until the peers have cleaned up after each step. After a step that
    failed because its peer died, this lasts until the peer is back at the same address. So closing
    runs in a thread of its own. If it does not end in time, the session is abandoned: that thread
    keeps it, so that Python does not destroy it (which blocks as well), and ends when the close
    does, or with the process. The session takes no more calls either way.

    Args:
        target: Master string, as of `tf.compat.v1.Session`.
        graph: The graph to run; the default graph if None.
        config: A `tf.compat.v1.ConfigProto`, or None.
        close_grace_secs: Seconds that `close` waits, unless a call has found a peer gone.
    """

    def __init__(
        self,
        target: str = "",
        graph: tf.Graph | None = None,
        config: Any = None,
        *,
        close_grace_secs: float = CLOSE_GRACE_SECS,
    ) -> None:
        # Set first: Python destroys the object even if TensorFlow refuses an argument.
        self._closing: Future[None] | None = None
        self._close_began = threading.Event()
        self._close_grace_secs = close_grace_secs
        self._repeated_runs = RepeatedRuns(self.make_callable)
        super().__init__(target, graph, config)

    def run(
        self, fetches: Any, feed_dict: Any = None, options: Any = None, run_metadata: Any = None
    ) -> Any:
        """Runs the graph, as `tf.compat.v1.Session.run` does; a repeated run costs less."""
        # Monitored sessions always give options; without a trace, metadata has nothing to tell.
        is_plain = not feed_dict and (options is None or not options.ByteSize())
        repeated = self._repeated_runs.find(fetches) if is_plain and not self._closed else None
        try:
            if repeated is None:
                return super().run(fetches, feed_dict, options, run_metadata)
            return self._do_call(repeated)
        except tf.errors.OpError as error:
            if isinstance(error, PREEMPTION_ERRORS):
                # Closing it would wait for a peer that is gone, so no thread waits for that.
                self._close_grace_secs = 0.0
            note_op(error, self.graph)
            raise

    def make_callable(
        self, fetches: Any, feed_list: Any = None, accept_options: bool = False
    ) -> Callable[..., Any]:
        """Prepares a run, as `tf.compat.v1.Session.make_callable` does."""
        prepared = super().make_callable(fetches, feed_list, accept_options)

        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return prepared(*args, **kwargs)
            except tf.errors.OpError as error:
                note_op(error, self.graph)
                raise

        return run

    @property
    def newest_run(self) -> Any:
        """The fetches of the newest run that is likely to be repeated, or None."""
        return self._repeated_runs.newest

    def register_run(self, fetches: Any) -> None:
        """Registers with all servers a run that is about to be made; see `make_registered_run`."""
        self._repeated_runs.add(fetches, make_registered_run(self, fetches))

    def close(self) -> None:
        """Closes the session, or abandons it after `close_grace_secs`; a second call does nothing.

        Raises:
            tf.errors.OpError: Closing ended in time, with an error.
        """
        if self._closing is not None:
            return
        self._close_began.set()
        self._closing = call_in_background("session-reaper", super().close)
        if has_ended(self._closing, self._close_grace_secs):
            self._closing.result()
        elif self._close_grace_secs:
            _logger.warning(
                "A session did not close within %g s and was abandoned: a peer of it is gone.",
                self._close_grace_secs,
            )

    def close_within(self, secs: float) -> None:
        """Has the session closed `secs` from now, unless it was before; does not wait for it.

        Calls in other threads that would never end, such as a queue runner's, fail then.
        """

        def close_when_due() -> None:
            if not self._close_began.wait(secs):
                self.close()

        call_in_background("session-timer", close_when_due)

    def __del__(self) -> None:
        if sys.is_finalizing():
            return
        if self._closing is not None:
            super().__del__()
            return
        # It was not closed, so destroying it may block. `threading` is not used, since the garbage
        # collector may run this while the same thread holds that module's lock.
        self._closing = Future()
        with contextlib.suppress(RuntimeError):
            _thread.start_new_thread(self._destroy, ())

    def _destroy(self) -> None:
        with contextlib.suppress(tf.errors.OpError, AttributeError):
            super().close()
            super().__del__()


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
        is_needed: Called between two attempts; False ends the wait, for example after a
            replacement.

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
    """The cluster of this process's server with a target; None if there is no such server."""
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


def _run_options(deadline: Deadline) -> Any:
    remaining_secs = deadline.remaining_secs()
    if math.isinf(remaining_secs):
        return None
    # The last check comes when the wait is over, and needs time for its answer as well.
    timeout_secs = max(remaining_secs, _MIN_ANSWER_SECS)
    return tf.compat.v1.RunOptions(timeout_in_ms=int(timeout_secs * 1000))
