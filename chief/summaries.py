"""TensorBoard events: the job's own scalars, and the model's summaries that a worker evaluated."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..cluster.logdir.errors import LOGDIR_ERRORS, remedy_for
from ..cluster.logdir.interface import LogDirectory, open_logdir
from ..reasons import reason_of
from .progress import Snapshot

PREFIX = "events.out.tfevents."
log = logging.getLogger(__name__)
v1 = tf.compat.v1
# Number of events that may wait for a slow disk; further ones are dropped.
MAX_WAITING = 1000
# Seconds between two times that events are brought to where readers find them.
FLUSH_SECS = 30.0
# How long `flush` and `close` wait for a slow disk.
MAX_WAIT_SECS = 10.0
# After an error: seconds in which events are dropped before the next try.
RETRY_SECS = 10.0


class EventFiles:
    """Event files of a log directory: one, and a new one after each error.

    TensorFlow's own writer silently drops events that do not fit on a full disk or in a lost
    directory. It also leaves half an event, at which readers stop. Here both raise; the next event
    begins a new file, which readers take for the continuation.

    Args:
        storage: The log directory.
        first: Events that each new file begins with.
    """

    def __init__(self, storage: LogDirectory, first: list[Any]) -> None:
        self._storage = storage
        self._first = first
        self._name = ""
        self._writer: Any = None
        self._numbers = itertools.count()

    def open(self) -> None:
        """Opens a file, unless one is open.

        Raises:
            One of `LOGDIR_ERRORS`: It could not be created.
        """
        if self._writer is None:
            with self._giving_up_on_errors():
                self._open()

    def write(self, event: Any) -> None:
        """Writes a `tf.compat.v1.Event`.

        Raises:
            One of `LOGDIR_ERRORS`: It could not be written.
        """
        self.open()
        with self._giving_up_on_errors():
            self._writer.write(event.SerializeToString())

    def flush(self) -> None:
        """Writes all pending events to the log directory.

        Raises:
            One of `LOGDIR_ERRORS`: Events were lost; which ones is not known.
        """
        if self._writer is None:
            return
        with self._giving_up_on_errors():
            self._writer.flush()
            path = tf.io.gfile.join(self._storage.directory, self._name)
            if not tf.io.gfile.exists(path):  # A file that was deleted still takes everything.
                raise FileNotFoundError(f"{path} is gone")
            self._storage.publish(self._name)

    def close(self) -> None:
        """Flushes and closes the file.

        Raises:
            One of `LOGDIR_ERRORS`: As of `flush`.
        """
        try:
            self.flush()
        finally:
            self._give_up()

    def _open(self) -> None:
        self._storage.prepare()
        tf.io.gfile.makedirs(self._storage.directory)
        # Readers take files in the order of their names.
        number = next(self._numbers)
        self._name = f"{PREFIX}{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{number}"
        path = tf.io.gfile.join(self._storage.directory, self._name)
        self._writer = tf.io.TFRecordWriter(path)
        version = tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2")
        for event in (version, *self._first):
            self._writer.write(event.SerializeToString())

    @contextlib.contextmanager
    def _giving_up_on_errors(self) -> Any:
        try:
            yield
        except LOGDIR_ERRORS:
            self._give_up()
            raise

    def _give_up(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(*LOGDIR_ERRORS):
                writer.close()


class SummaryService:
    """Writer of event files in the log directory. Methods may be called from any thread.

    A thread of its own writes. If the log directory is full or slow, events are dropped: training
    neither stops nor waits for them.

    Args:
        logdir: TensorBoard's directory: a path, a URL or an open log directory.
        graph: The training graph, shown by TensorBoard.
        every_steps: Global steps between two of the job's own scalars; 0 writes none.
        retry_secs: Seconds in which events are dropped after an error.
    """

    def __init__(
        self,
        logdir: str | LogDirectory,
        graph: Any,
        every_steps: int,
        *,
        retry_secs: float = RETRY_SECS,
    ) -> None:
        self._storage = open_logdir(logdir)
        definition = graph.as_graph_def(add_shapes=True).SerializeToString()
        first = v1.Event(wall_time=time.time(), graph_def=definition)
        self._files = EventFiles(self._storage, [first])
        self._every_steps = every_steps
        self._retry_secs = retry_secs
        self._last_step: int | None = None
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(MAX_WAITING)
        self._retry_at: float | None = None  # Set while events cannot be written.
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="summaries", daemon=True)
        self._thread.start()
        self._put(self._files.open)

    def start_session(self, global_step: int) -> None:
        """Marks the start of a run; TensorBoard drops events of earlier runs beyond it."""
        self._write(global_step, session_log=v1.SessionLog(status=v1.SessionLog.START))

    def write_progress(self, progress: Snapshot, *, force: bool = False) -> None:
        """Writes loss, global_step/sec, examples/sec and the metrics, when they are due."""
        step = progress.global_step
        if not self._every_steps or step == self._last_step or progress.loss is None:
            return
        if not force and self._last_step is not None and step < self._last_step + self._every_steps:
            return
        self._last_step = step
        scalars = {
            "loss": progress.loss,
            "global_step/sec": progress.steps_per_second,
            "examples/sec": progress.examples_per_second,
            **{f"metrics/{name}": value for name, value in progress.metrics.items()},
        }
        self._write(step, summary=_summary(scalars))

    def write_model_summary(self, summary: bytes, global_step: int) -> None:
        """Writes a worker's summary: a serialized `tf.Summary`."""
        self._write(global_step, summary=v1.Summary.FromString(summary))

    def write_evaluation(self, metrics: dict[str, float], global_step: int) -> None:
        """Writes the metrics of an evaluation under `eval/`."""
        self._write(global_step, summary=_summary({f"eval/{k}": v for k, v in metrics.items()}))

    def flush(self) -> None:
        """Writes pending events to disk, or gives up waiting for it."""
        is_flushed = threading.Event()

        def flush() -> None:
            try:
                self._files.flush()
            finally:
                is_flushed.set()

        if not self._thread.is_alive() or not self._put(flush):
            return
        if not is_flushed.wait(MAX_WAIT_SECS):
            log.warning("events for %s wait for a slow disk", self._storage.logdir)

    def close(self) -> None:
        """Flushes and closes the event file; events that wait for a slow disk are given up."""
        if not self._thread.is_alive():
            return
        if self._put(self._files.close) and self._put(None):
            self._thread.join(MAX_WAIT_SECS)
        if self._thread.is_alive():
            log.warning("events for %s are given up: the disk is slow", self._storage.logdir)

    def _write(self, global_step: int, **content: Any) -> None:
        event = v1.Event(wall_time=time.time(), step=global_step, **content)
        if not self._put(lambda: self._write_event(event)):
            self._lost += 1

    def _put(self, call: Callable[[], None] | None) -> bool:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            return False
        return True

    def _run(self) -> None:
        flushed = time.monotonic()
        while True:
            try:
                call = self._calls.get(timeout=FLUSH_SECS)
            except queue.Empty:
                call = self._files.flush
            if call is None:
                return
            self._do(call)
            if time.monotonic() - flushed >= FLUSH_SECS:
                self._do(self._files.flush)
                flushed = time.monotonic()

    def _do(self, call: Callable[[], None]) -> None:
        try:
            call()
        except LOGDIR_ERRORS as error:
            if self._retry_at is None:
                log.warning(
                    "events are not written to %s: %s%s; training continues without them",
                    *(self._storage.logdir, reason_of(error), remedy_for(error)),
                )
            self._retry_at = time.monotonic() + self._retry_secs

    def _write_event(self, event: Any) -> None:
        if self._retry_at is not None and time.monotonic() < self._retry_at:
            self._lost += 1
            return
        self._files.write(event)
        if self._retry_at is not None:
            self._files.flush()  # Only now it is known that the disk takes them.
            self._retry_at = None
            log.info("events are written again; at least %d were lost", self._lost)


def _summary(scalars: dict[str, float]) -> Any:
    values = [v1.Summary.Value(tag=t, simple_value=v) for t, v in scalars.items()]
    return v1.Summary(value=values)
