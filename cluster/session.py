"""Sessions that can be dropped when a peer is dead.

TensorFlow's own sessions block for as long as a peer is gone, in three places: when they first
speak to the cluster, when they are closed, and when Python destroys them. Here the last two are
bounded, and in `opening.py` the first, so that a worker can drop a broken session and open
the next one.
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
        """Schedules the close of the session in `secs`, unless it is closed before; does not wait.

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
