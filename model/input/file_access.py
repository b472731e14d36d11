"""Files wherever they lie: local paths, file systems of TensorFlow (`gs://`), and of fsspec."""

from __future__ import annotations

import glob
import gzip
import io
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import tensorflow as tf

from ...errors import UsageError
from ...reasons import reason_of

_BUFFER_BYTES = 1 << 20
# Names of the time of the last change, or of its substitute, in fsspec's file systems.
_MODIFIED = ("mtime", "LastModified", "last_modified", "updated", "ETag", "etag", "created")


@dataclass(frozen=True)
class FileVersion:
    """The state of a file, which tells a changed file from an unchanged one.

    Attributes:
        size: Bytes.
        modified: Time of the last change, in the form of its file system; empty if it has none.
    """

    size: int
    modified: str


def find_files(patterns: Sequence[str]) -> list[str]:
    """Returns the files that match, each once and by name.

    Args:
        patterns: Names, or patterns with `*`, `?`, `[...]` and `**`.

    Raises:
        UsageError: Nothing matches one of them, it is a folder, or its file system is not known.
    """
    found = [name for pattern in patterns for name in _find(pattern)]
    return sorted(set(found))


def _find(pattern: str) -> list[str]:
    try:
        names = _match(pattern)
    except Exception as error:  # File systems raise errors of their own libraries.
        raise UsageError(f"files {pattern!r} cannot be looked for: {reason_of(error)}") from error
    if not names:
        is_folder = "://" not in pattern and Path(pattern).is_dir()
        if is_folder:
            raise NothingFound(f"{pattern!r} is a folder: give a pattern, as in 'data/*.csv'")
        is_relative = "://" not in pattern and not os.path.isabs(pattern)
        where = f", looked for in {Path.cwd()}" if is_relative else ""
        raise NothingFound(f"no file matches {pattern!r} on {socket.gethostname()}{where}")
    return names


class NothingFound(UsageError):
    """No file matches a pattern on this host."""


def _match(pattern: str) -> list[str]:
    if "://" not in pattern:
        names = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
        return [name for name in names if os.path.isfile(name)]
    if _is_tensorflow(pattern):
        return [name for name in tf.io.gfile.glob(pattern) if not tf.io.gfile.isdir(name)]
    files, path = fsspec.core.url_to_fs(pattern)
    found = files.glob(path, detail=True)
    return [files.unstrip_protocol(name) for name, info in found.items() if info["type"] == "file"]


def find_version(name: str) -> FileVersion:
    """Returns the state of a file.

    Raises:
        OSError, tf.errors.OpError: It is not there, or cannot be read.
    """
    if "://" not in name:
        status = os.stat(name)
        return FileVersion(status.st_size, str(status.st_mtime_ns))
    if _is_tensorflow(name):
        found = tf.io.gfile.stat(name)
        return FileVersion(found.length, str(found.mtime_nsec))
    files, path = fsspec.core.url_to_fs(name)
    files.invalidate_cache()
    info = files.info(path)
    modified = next((str(info[key]) for key in _MODIFIED if info.get(key)), "")
    return FileVersion(int(info["size"]), modified)


def is_compressed(name: str) -> bool:
    """Returns whether a file has to be read from its beginning, being compressed as a whole."""
    return name.endswith(".gz")


@contextmanager
def open_binary(name: str) -> Iterator[BinaryIO]:
    """Opens a file to be read, uncompressed if it is a `.gz`.

    Raises:
        OSError, tf.errors.OpError: It is not there, or cannot be read.
    """
    with _open(name) as file:
        if is_compressed(name):
            with gzip.open(file) as uncompressed:
                yield cast(BinaryIO, uncompressed)
        else:
            yield file


def _open(name: str) -> BinaryIO:
    if "://" not in name:
        return open(name, "rb", buffering=_BUFFER_BYTES)  # Closed by the caller.
    if _is_tensorflow(name):
        return cast(BinaryIO, io.BufferedReader(_TensorFlowFile(name), _BUFFER_BYTES))
    files, path = fsspec.core.url_to_fs(name)
    return cast(BinaryIO, files.open(path, "rb"))


def is_for_tensorflow(name: str) -> bool:
    """Returns whether TensorFlow's own datasets can open a file."""
    return "://" not in name or _is_tensorflow(name)


def _is_tensorflow(name: str) -> bool:
    return name.partition("://")[0] in tf.io.gfile.get_registered_schemes()


class _TensorFlowFile(io.RawIOBase):
    """TensorFlow's file as a file of Python."""

    def __init__(self, name: str) -> None:
        self._file = tf.io.gfile.GFile(name, "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._file.size()}
        self._file.seek(base[whence] + offset)
        return int(self._file.tell())

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()
