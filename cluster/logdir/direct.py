"""Log directories that TensorFlow reads and writes in place."""

from __future__ import annotations

import contextlib
import uuid

import tensorflow as tf

from .errors import LOGDIR_ERRORS


class DirectLogDirectory:
    """A log directory that TensorFlow reaches by itself.

    Args:
        logdir: The directory.
    """

    def __init__(self, logdir: str) -> None:
        self.logdir = logdir

    @property
    def directory(self) -> str:
        """The log directory."""
        return self.logdir

    def prepare(self) -> None:
        """Creates the log directory, if it is not there."""
        tf.io.gfile.makedirs(self.logdir)

    def names(self) -> list[str]:
        """Returns the names of the files in the log directory."""
        if not tf.io.gfile.isdir(self.logdir):
            return []
        # Some file systems mark folders by a slash.
        return [name.rstrip("/") for name in tf.io.gfile.listdir(self.logdir)]

    def modified(self, name: str) -> float:
        """Returns the time of a file's last write."""
        return float(tf.io.gfile.stat(self._path(name)).mtime_nsec / 1e9)

    def read_text(self, name: str) -> str | None:
        """Returns the content of a small file."""
        try:
            with tf.io.gfile.GFile(self._path(name)) as file:
                return str(file.read())
        except tf.errors.NotFoundError:
            return None

    def write_text(self, name: str, text: str) -> None:
        """Writes a small file."""
        self.prepare()
        temporary = self._path(temporary_name(name))
        try:
            with tf.io.gfile.GFile(temporary, "w") as file:
                file.write(text)
            tf.io.gfile.rename(temporary, self._path(name), overwrite=True)
        except LOGDIR_ERRORS:
            with contextlib.suppress(*LOGDIR_ERRORS):
                tf.io.gfile.remove(temporary)
            raise

    def fetch(self, *names: str) -> None:
        """Does nothing: the files are there."""

    def publish(self, *names: str) -> None:
        """Does nothing: the files are there."""

    def release(self, *names: str) -> None:
        """Does nothing: these are the only files."""

    def remove(self, *names: str) -> None:
        """Removes files."""
        for path in map(self._path, names):
            with contextlib.suppress(tf.errors.NotFoundError):
                is_folder = tf.io.gfile.isdir(path)
                (tf.io.gfile.rmtree if is_folder else tf.io.gfile.remove)(path)

    def move(self, name: str, folder: str) -> None:
        """Moves a file into a folder."""
        tf.io.gfile.makedirs(self._path(folder))
        target = tf.io.gfile.join(self._path(folder), name)
        tf.io.gfile.rename(self._path(name), target, overwrite=True)

    def close(self) -> None:
        """Does nothing: there is nothing to remove."""

    def _path(self, name: str) -> str:
        return str(tf.io.gfile.join(self.logdir, name))


def temporary_name(name: str) -> str:
    """Returns a name, unique, under which a file is written before it gets its own."""
    return f".{name}-{uuid.uuid4().hex}"
