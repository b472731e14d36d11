"""TensorBoard event files, written so that one hears of it when the disk does not take them."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from typing import Any

import tensorflow as tf

from ..cluster.logdir.errors import LOGDIR_ERRORS
from ..cluster.logdir.interface import LogDirectory

PREFIX = "events.out.tfevents."


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
