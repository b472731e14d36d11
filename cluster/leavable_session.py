"""A session that one can leave in the middle of a step, when a peer does not answer any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeAlias

import tensorflow as tf

from .session import BoundedCloseSession

# The number of a call, its result, and its error.
_Outcome: TypeAlias = tuple[int, Any, BaseException | None]


class LeavableSession(BoundedCloseSession):
    """A session whose calls of `run` end with `AbortedError` as soon as `leave` is called.

    A step whose peer was frozen, or cut off from the network, does not end, even when its session
    is closed: TensorFlow waits until the peer is back. So steps run in a thread of the session's
    own, and only that thread stays behind. This holds for the thread that makes the session; calls
    of other threads, such as queue runners, run in those.
    """

    def __init__(self, target: str = "", graph: tf.Graph | None = None, config: Any = None) -> None:
        self._calls: SimpleQueue[tuple[int, Callable[[], Any]] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[_Outcome] = SimpleQueue()
        self._owner = threading.get_ident()
        self._number = 0
        self._left = ""
        super().__init__(target, graph, config)
        threading.Thread(target=self._serve, name="session-runner", daemon=True).start()

    @property
    def is_left(self) -> bool:
        """True if no new call can begin."""
        return bool(self._left)

    def leave(self, reason: str) -> None:
        """Makes the current call, and all later ones, fail.

        Args:
            reason: Why, for people.
        """
        self._left = reason
        self._close_grace_secs = 0.0
        self._outcomes.put((self._number, None, self._error()))

    def run(
        self, fetches: Any, feed_dict: Any = None, options: Any = None, run_metadata: Any = None
    ) -> Any:
        """Runs the graph, as `tf.compat.v1.Session.run` does.

        Raises:
            tf.errors.AbortedError: The session was left.
        """
        if threading.get_ident() != self._owner:
            return super().run(fetches, feed_dict, options, run_metadata)
        run = super().run
        return self._call(lambda: run(fetches, feed_dict, options, run_metadata))

    def register_run(self, fetches: Any) -> None:
        """Registers a run with all servers; see `BoundedCloseSession.register_run`.

        Raises:
            tf.errors.AbortedError: The session was left.
        """
        register = super().register_run
        self._call(lambda: register(fetches))

    def close(self) -> None:
        """Closes the session, see `BoundedCloseSession.close`, and ends its thread."""
        self._calls.put(None)
        super().close()

    def _call(self, call: Callable[[], Any]) -> Any:
        """Calls in the session's thread, by the thread that made the session."""
        self._number += 1
        # Read after the number has changed: a `leave` from here on ends this call.
        if self._left:
            raise self._error()
        self._calls.put((self._number, call))
        number, result, error = self._outcomes.get()
        while number != self._number:  # The result of an abandoned call that ended later.
            number, result, error = self._outcomes.get()
        if error is not None:
            raise error
        return result

    def _error(self) -> tf.errors.AbortedError:
        return tf.errors.AbortedError(None, None, f"the session was left: {self._left}")

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            number, run = call
            try:
                outcome: _Outcome = (number, run(), None)
            except BaseException as error:
                outcome = (number, None, error)
            self._outcomes.put(outcome)
            del call, run, outcome  # Nothing of a step outlives it here.
