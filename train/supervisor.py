"""`Supervisor`: waits that are short, and an end that no stuck thread holds up."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import tensorflow as tf

from ..cluster.deadline import POLL_SECS, Deadline
from ..cluster.session import BoundedCloseSession
from ..tf_internals import registered_threads
from .functions import assert_global_step, get_global_step
from .monitored_session import RELEASE_SECS, check_graph
from .session_manager import SessionManager

# Of the constructor's local names, those that are no arguments of TensorFlow's.
_OWN = ("self", "__class__", "release_secs")
_DEFAULT: Final[Any] = tf.compat.v1.train.Supervisor.USE_DEFAULT


class Supervisor(tf.compat.v1.train.Supervisor):
    """Supervisor that initializes or restores a model, and saves it and summaries from threads.

    Takes the arguments of `tf.compat.v1.train.Supervisor`, and one more. The differences: a worker
    that comes before its chief looks again after 0.1 s and not after 30 s. Queue runners that are
    stuck, such as a synchronous chief's, do not hold up the end for `stop_grace_secs` and do not
    make it fail. Sessions with a dead peer close in bounded time. A global step that is a resource
    variable is found.

    Example::

        with tf.Graph().as_default():
            train_op = build_model()
            supervisor = Supervisor(logdir="/tmp/model")
            with supervisor.managed_session() as session:
                while not supervisor.should_stop():
                    session.run(train_op)

    Args:
        graph: The graph, which is finalized; the default graph if None.
        ready_op: Gives the names of uninitialized variables, a string tensor of shape [n].
        ready_for_local_init_op: The same, checked before `local_init_op`.
        is_chief: Whether this task initializes or restores, saves and summarizes.
        init_op: Initializes the model; all global variables by default. None does nothing.
        init_feed_dict: What to feed to `init_op`.
        local_init_op: Run in each session; local variables and tables by default.
        logdir: Directory to which the chief writes, and from which it resumes; None writes nothing.
        summary_op: The summaries that the chief writes; all by default. None writes none.
        saver: Saves and restores; all variables by default. None does neither.
        global_step: A scalar of an integer type; that of the graph by default. None has no step.
        save_summaries_secs: Seconds between summaries; 0 writes none.
        save_model_secs: Seconds between checkpoints; 0 saves none.
        recovery_wait_secs: Seconds between the first two checks whether the model is ready; later
            ones are up to 1 s apart, or this if it is more.
        stop_grace_secs: Seconds that threads get to end when the supervisor stops.
        checkpoint_basename: The name of the checkpoints, before the step.
        session_manager: Makes the sessions; a `paramserve.train.SessionManager` if None.
        summary_writer: Writer of the summaries; a new one in `logdir` by default, None for none.
        init_fn: Called with the session after `init_op`.
        local_init_run_options: A `tf.compat.v1.RunOptions` for `local_init_op`.
        release_secs: Seconds that queue runners get to end, at most `stop_grace_secs`.

    Raises:
        RuntimeError: Not in a graph, or it is finalized already.
        TypeError: The global step is no scalar, or not of an integer type.
        ValueError: In another task than the chief, a ref variable has no device.
    """

    def __init__(
        self,
        graph: tf.Graph | None = None,
        ready_op: Any = _DEFAULT,
        ready_for_local_init_op: Any = _DEFAULT,
        is_chief: bool = True,
        init_op: Any = _DEFAULT,
        init_feed_dict: Any = None,
        local_init_op: Any = _DEFAULT,
        logdir: str | None = None,
        summary_op: Any = _DEFAULT,
        saver: Any = _DEFAULT,
        global_step: Any = _DEFAULT,
        save_summaries_secs: float | None = 120,
        save_model_secs: float | None = 600,
        recovery_wait_secs: float = POLL_SECS,
        stop_grace_secs: float = 120,
        checkpoint_basename: str = "model.ckpt",
        session_manager: tf.compat.v1.train.SessionManager | None = None,
        summary_writer: Any = _DEFAULT,
        init_fn: Callable[[tf.compat.v1.Session], Any] | None = None,
        local_init_run_options: Any = None,
        *,
        release_secs: float = RELEASE_SECS,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in _OWN}
        if graph is None:
            check_graph("Supervisor")
            graph = tf.compat.v1.get_default_graph()
        self._release_secs = min(release_secs, stop_grace_secs / 2)
        self._runner_threads: list[threading.Thread] = []
        with graph.as_default():
            given |= {"graph": graph, "global_step": _find_global_step(global_step, graph)}
            super().__init__(**given)
        self._coord = GraphCoordinator(graph)

    def _init_session_manager(self, session_manager: Any = None) -> None:
        # Called by TensorFlow's constructor when the ops are there and the graph is not yet final.
        if session_manager is None:
            session_manager = SessionManager(
                local_init_op=self._local_init_op,
                ready_op=self._ready_op,
                ready_for_local_init_op=self._ready_for_local_init_op,
                graph=self._graph,
                recovery_wait_secs=self._recovery_wait_secs,
                local_init_run_options=self._local_init_run_options,
            )
        super()._init_session_manager(session_manager)

    def prepare_or_wait_for_session(
        self,
        master: str = "",
        config: Any = None,
        wait_for_checkpoint: bool = False,
        max_wait_secs: float | None = 7200,
        start_standard_services: bool = True,
    ) -> tf.compat.v1.Session:
        """Makes a session of a model that is ready.

        Args:
            master: "" for this process alone, or "grpc://host:port".
            config: A `tf.compat.v1.ConfigProto`, or None.
            wait_for_checkpoint: Whether the chief waits until there is a checkpoint.
            max_wait_secs: Seconds to wait for servers, a checkpoint, or the chief; None waits for
                ever.
            start_standard_services: Whether to save, summarize and fill queues from threads.

        Raises:
            RuntimeError: The initialization left variables uninitialized.
            tf.errors.DeadlineExceededError: The wait ran out.
        """
        with self._graph.as_default():
            return super().prepare_or_wait_for_session(
                master, config, wait_for_checkpoint, max_wait_secs, start_standard_services
            )

    def start_queue_runners(
        self,
        sess: tf.compat.v1.Session,
        queue_runners: Sequence[tf.compat.v1.train.QueueRunner] | None = None,
    ) -> list[threading.Thread]:
        """Starts threads that fill queues.

        Args:
            sess: The session.
            queue_runners: Which ones; those in the collection `QUEUE_RUNNERS` if None.

        Returns:
            The threads.
        """
        with self._graph.as_default():
            threads = super().start_queue_runners(sess, queue_runners)
        self._runner_threads.extend(threads)
        return list(threads)

    def stop(
        self,
        threads: Sequence[threading.Thread] | None = None,
        close_summary_writer: bool = True,
        ignore_live_threads: bool = False,
    ) -> None:
        """Stops the threads; does not close the session.

        Queue runners that do not end within `release_secs` are stuck in a call of the session, and
        are left to end with it.

        Args:
            threads: Threads to wait for, besides those that this supervisor started.
            close_summary_writer: Whether to close the events file.
            ignore_live_threads: Whether to leave other threads that do not end alone.

        Raises:
            RuntimeError: Another thread did not end within `stop_grace_secs`.
            Exception: The exception of a thread.
        """
        self.request_stop()
        stuck = self._wait_for_queue_runners()
        try:
            self._join_others(list(threads or ()), stuck, ignore_live_threads)
        finally:
            self._stop_grace_secs, grace_secs = 0.0, self._stop_grace_secs
            try:
                super().stop(threads, close_summary_writer, ignore_live_threads=True)
            finally:
                self._stop_grace_secs = grace_secs

    @contextlib.contextmanager
    def managed_session(
        self,
        master: str = "",
        config: Any = None,
        start_standard_services: bool = True,
        close_summary_writer: bool = True,
    ) -> Iterator[tf.compat.v1.Session]:
        """Makes a session for a `with` statement, at whose end the threads and the session end.

        Exceptions inside it or in a thread are raised again at the end, except for
        `tf.errors.OutOfRangeError`: the end of the input is a normal end.

        Args:
            master: "" for this process alone, or "grpc://host:port".
            config: A `tf.compat.v1.ConfigProto`, or None.
            start_standard_services: Whether to save, summarize and fill queues from threads.
            close_summary_writer: Whether to close the events file at the end.

        Yields:
            The session.
        """
        session = None
        try:
            session = self.prepare_or_wait_for_session(
                master=master, config=config, start_standard_services=start_standard_services
            )
            yield session
        except Exception as error:
            self.request_stop(error)
        finally:
            # Here, unlike in `stop`, the session is not needed any more.
            if isinstance(session, BoundedCloseSession):
                session.close_within(self._release_secs)
                self._runner_threads.clear()
            try:
                self.stop(close_summary_writer=close_summary_writer)
            finally:
                if session is not None:
                    with contextlib.suppress(tf.errors.OpError):
                        session.close()

    def _wait_for_queue_runners(self) -> list[threading.Thread]:
        """Waits `release_secs`, and returns the threads that are still there."""
        deadline = Deadline.after(self._release_secs)
        for thread in self._runner_threads:
            thread.join(deadline.remaining_secs())
        self._runner_threads = [thread for thread in self._runner_threads if thread.is_alive()]
        return self._runner_threads

    def _join_others(
        self,
        threads: list[threading.Thread],
        stuck: list[threading.Thread],
        ignore_live_threads: bool,
    ) -> None:
        # The coordinator's threads include the services', which may be in the middle of a save.
        known = {*registered_threads(self.coord), *threads} - {*stuck, threading.current_thread()}
        deadline = Deadline.after(self._stop_grace_secs)
        for thread in known:
            thread.join(deadline.remaining_secs())
        live = [thread.name for thread in known if thread.is_alive()]
        if live and not ignore_live_threads:
            raise RuntimeError(
                f"Coordinator stopped with threads still running after {self._stop_grace_secs:g} "
                f"s: {' '.join(live)}. Have them look at should_stop(), or raise stop_grace_secs"
            )


def _find_global_step(global_step: Any, graph: tf.Graph) -> Any:
    """Returns the step to count with: the one given, or else the graph's."""
    if global_step is None:
        return None
    if global_step is _DEFAULT:
        collected = graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_STEP)
        with graph.as_default():
            global_step = collected[0] if collected else get_global_step(graph)
        if global_step is None:
            return _DEFAULT
    assert_global_step(global_step)
    return global_step


class GraphCoordinator(tf.compat.v1.train.Coordinator):
    """Coordinator that runs the threads of a supervisor in its graph, and abandons stuck ones.

    In TensorFlow 2, a new thread has no current graph. TensorFlow then treats the global step,
    which the supervisor's services read, as an eager value.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: tf.Graph) -> None:
        super().__init__()
        self._graph = graph

    @contextlib.contextmanager
    def stop_on_exception(self) -> Iterator[None]:
        """Stops all threads if the code inside raises something."""
        with self._graph.as_default(), super().stop_on_exception():
            yield

    def request_stop(self, ex: Any = None) -> None:
        """Stops all threads, and remembers the first error."""
        # A queue runner that `stop` abandoned: it ends with its session, as it should.
        if not (self.joined and isinstance(ex, tf.errors.CancelledError)):
            super().request_stop(ex)
