"""A queue runner whose threads feed Python values: `FeedingQueueRunner`."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import tensorflow as tf

_logger = logging.getLogger(__name__)

FeedFn = Callable[[], Mapping[Any, Any] | None]


class FeedingQueueRunner(tf.compat.v1.train.QueueRunner):
    """A `tf.compat.v1.train.QueueRunner` whose threads feed the results of functions.

    A function ends its thread by raising one of `queue_closed_exception_types`; when the last
    thread has ended like this, the queue is closed, and its elements can still be taken.

    Example::

        number = tf.compat.v1.placeholder(tf.int32, [])
        queue = tf.queue.FIFOQueue(8, tf.int32, shapes=[[]])
        numbers = itertools.count()
        runner = FeedingQueueRunner(
            queue, [queue.enqueue(number)], feed_fns=[lambda: {number: next(numbers)}]
        )
        tf.compat.v1.train.add_queue_runner(runner)

    Args:
        queue: The queue, which knows how to `close` itself and has a `name`.
        enqueue_ops: Ops to run, over and over, each in a thread of its own.
        close_op: Closes the queue when the input has ended, and leaves pending enqueues alone; by
            default `queue.close()`.
        cancel_op: Closes the queue when the coordinator stops, and cancels pending enqueues; by
            default `queue.close(cancel_pending_enqueues=True)`.
        feed_fns: A function for each of `enqueue_ops`, called before each run of it in its thread.
            It takes no arguments and returns a feed dictionary, or None to feed nothing. With
            `feed_fns=None` nothing is fed.
        queue_closed_exception_types: Exceptions that mean the end of the input, raised by an op or
            by a function: `tf.errors.OpError`s, by default `tf.errors.OutOfRangeError` and
            `tf.errors.CancelledError`.

    Raises:
        TypeError: `queue_closed_exception_types` are no `tf.errors.OpError`s.
        ValueError: `feed_fns` and `enqueue_ops` differ in length, or there is no queue or no op.
        RuntimeError: Eager execution is on.
    """

    def __init__(
        self,
        queue: Any = None,
        enqueue_ops: Sequence[Any] | None = None,
        close_op: Any = None,
        cancel_op: Any = None,
        feed_fns: Sequence[FeedFn | None] | None = None,
        queue_closed_exception_types: tuple[type[tf.errors.OpError], ...] | None = None,
    ) -> None:
        if queue_closed_exception_types is None:
            queue_closed_exception_types = (tf.errors.OutOfRangeError, tf.errors.CancelledError)
        super().__init__(
            queue,
            enqueue_ops,
            close_op,
            cancel_op,
            queue_closed_exception_types=queue_closed_exception_types,
        )
        if feed_fns is None:
            feed_fns = [None] * len(self.enqueue_ops)
        elif len(feed_fns) != len(self.enqueue_ops):
            raise ValueError(
                f"feed_fns has {len(feed_fns)} entries, and enqueue_ops {len(self.enqueue_ops)}: "
                "If feed_fns is not None, it must have the same length as enqueue_ops"
            )
        self._feed_fns = list(feed_fns)
        self._feed_lock = threading.Lock()
        self._feeding: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._feed_errors: list[Exception] = []

    @property
    def exceptions_raised(self) -> list[Exception]:
        """The threads' exceptions that no coordinator took."""
        return self._feed_errors

    def create_threads(
        self,
        sess: tf.compat.v1.Session,
        coord: tf.compat.v1.train.Coordinator | None = None,
        daemon: bool = False,
        start: bool = False,
    ) -> list[threading.Thread]:
        """Creates the threads that feed and run the enqueue ops.

        Args:
            sess: The session to run them in.
            coord: A coordinator that stops the threads and to which they report errors. There is
                then one more thread, which cancels pending enqueues when it stops. Without a
                coordinator, errors are collected in `exceptions_raised`.
            daemon: Whether the threads are daemons.
            start: Whether to start the threads.

        Returns:
            The threads; none if the session still has some of an earlier call.
        """
        with self._feed_lock:
            if self._feeding.get(sess, 0):
                return []
            self._feeding[sess] = len(self.enqueue_ops)
            self._feed_errors = []
        name = f"FeedingQueueRunner-{self.name}"
        threads = [
            threading.Thread(target=self._feed, args=(sess, op, feed_fn, coord), name=name)
            for op, feed_fn in zip(self.enqueue_ops, self._feed_fns, strict=True)
        ]
        if coord is not None:
            cancel = threading.Thread(target=self._cancel_on_stop, args=(sess, coord), name=name)
            threads.append(cancel)
        for thread in threads:
            thread.daemon = daemon
            if coord is not None:
                coord.register_thread(thread)
            if start:
                thread.start()
        return threads

    def to_proto(self, export_scope: str | None = None) -> NoReturn:
        """Fails: Python functions have no protocol buffer.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no protocol buffer, since its feed functions have none: "
            "make a new one in the process that needs it"
        )

    @staticmethod
    def from_proto(queue_runner_def: Any, import_scope: str | None = None) -> NoReturn:
        """Fails, as `to_proto` does.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "a FeedingQueueRunner cannot come from a protocol buffer, since feed functions have "
            "none: make a new one"
        )

    def _feed(
        self,
        session: tf.compat.v1.Session,
        enqueue_op: Any,
        feed_fn: FeedFn | None,
        coordinator: tf.compat.v1.train.Coordinator | None,
    ) -> None:
        """Feeds until the input ends, the coordinator stops or something fails."""
        ended = False
        try:
            while coordinator is None or not coordinator.should_stop():
                session.run(enqueue_op, feed_dict=None if feed_fn is None else feed_fn())
        except self.queue_closed_exception_types:
            ended = True
        except Exception as error:
            self._report(error, coordinator)
        finally:
            with self._feed_lock:
                self._feeding[session] -= 1
                is_last = self._feeding[session] == 0
            if ended and is_last:
                self._run_close(session, self.close_op)

    def _report(self, error: Exception, coordinator: tf.compat.v1.train.Coordinator | None) -> None:
        if coordinator is not None:
            coordinator.request_stop(error)
            return
        _logger.error("A thread that feeds %r ended with an error.", self.name, exc_info=error)
        with self._feed_lock:
            self._feed_errors.append(error)

    def _cancel_on_stop(
        self, session: tf.compat.v1.Session, coordinator: tf.compat.v1.train.Coordinator
    ) -> None:
        coordinator.wait_for_stop()
        self._run_close(session, self.cancel_op)

    def _run_close(self, session: tf.compat.v1.Session, close_op: Any) -> None:
        try:
            session.run(close_op)
        except Exception as error:
            # The session may be gone already, and the queue with it.
            _logger.debug("Could not close %r: %s", self.name, error)
