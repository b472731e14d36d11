"""The log directory, wherever it lies: read and written in place, or by way of this machine."""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf

from .direct import DirectLogDirectory
from .staged import StagedLogDirectory


class LogDirectory(Protocol):
    """A log directory.

    TensorFlow writes and reads under `directory`, which is the log directory itself or a place on
    this machine; `publish` and `fetch` keep both in step. Every method may raise one of
    `LOGDIR_ERRORS`.

    Attributes:
        logdir: The log directory, as it was named.
    """

    logdir: str

    @property
    def directory(self) -> str:
        """The directory in which TensorFlow writes and reads in this process."""

    def prepare(self) -> None:
        """Creates the log directory, if it is not there."""

    def names(self) -> list[str]:
        """Returns the names of the files in the log directory; none when it does not exist."""

    def modified(self, name: str) -> float:
        """Returns the time of a file's last write, Unix time in seconds."""

    def read_text(self, name: str) -> str | None:
        """Returns the content of a small file; None when there is none."""

    def write_text(self, name: str, text: str) -> None:
        """Writes a small file: it appears whole or not at all, also to concurrent readers."""

    def fetch(self, *names: str) -> None:
        """Makes these files of the log directory available in `directory`."""

    def publish(self, *names: str) -> None:
        """Makes these files of `directory` available in the log directory, in this order."""

    def release(self, *names: str) -> None:
        """Allows these published files to leave `directory`."""

    def remove(self, *names: str) -> None:
        """Removes files or folders, in this order; a missing one is no error."""

    def move(self, name: str, folder: str) -> None:
        """Moves a file into a folder of the log directory, which is created if need be."""

    def close(self) -> None:
        """Ends the use of it; of a place on this machine nothing is left that was published."""


def open_logdir(logdir: str | LogDirectory) -> LogDirectory:
    """Returns the log directory behind a path or a URL; a `LogDirectory` is returned unchanged.

    Args:
        logdir: A path or a URL: of a file system of TensorFlow (`gs://`) or of fsspec (`s3://`,
            `abfs://`, `sftp://`).

    Raises:
        UsageError: The URL's scheme is unknown, or a package for it is not installed.
    """
    if not isinstance(logdir, str):
        return logdir
    return DirectLogDirectory(logdir) if is_direct(logdir) else StagedLogDirectory(logdir)


def is_direct(logdir: str) -> bool:
    """Returns whether TensorFlow itself reads and writes a log directory."""
    scheme, separator, _ = logdir.partition("://")
    return not separator or scheme in tf.io.gfile.get_registered_schemes()
