"""The files of an input in shards, as a task reads them."""

from __future__ import annotations

import bisect
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Protocol

import numpy as np
import tensorflow as tf

from ...errors import UsageError
from ..building import untuned
from .file_access import find_version, is_for_tensorflow, open_binary
from .file_formats import Contents, TFRecords
from .file_index import FileIndex, FileQuery, IndexedFile
from .shard_plan import FilePart
from .source import OpenFile

v1 = tf.compat.v1

# Files that are examined or counted at a time: most time is spent waiting for the storage.
THREADS = 16
# A message names so many files, and counts the others.
_SOME = 3
# The errors of a file that is missing, may not be read, or is a folder.
GONE = (
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
)


class Files(Protocol):
    """Opens the files of a plan.

    Attributes:
        are_counted: Whether their records were counted here; else a user says how many there are.
    """

    are_counted: bool

    def locate(self, part: FilePart, record: int) -> tuple[str, int, int]:
        """Finds a record, on this host, outside of the graph.

        Args:
            part: A part of a file.
            record: Number within the part.

        Returns:
            The arguments of `open`, and the number of records to skip then.

        Raises:
            UsageError: The file is missing, or has changed since it was counted.
            OSError, tf.errors.OpError: The file cannot be read now.
        """

    def open(self, name: Any, begin: Any) -> Any:
        """Makes the dataset of a file's records; string and int64 scalars, in the graph."""

    def check(self, part: FilePart) -> None:
        """Compares how many records a file has with how many it should have.

        Raises:
            UsageError: They differ.
        """


class GivenFiles:
    """Files whose numbers of records the user gives, each a shard.

    Args:
        open_file: Makes the dataset of a file.
    """

    are_counted = False

    def __init__(self, open_file: OpenFile) -> None:
        self._open_file = open_file

    def locate(self, part: FilePart, record: int) -> tuple[str, int, int]:
        """Returns the start of the file and the records to skip, since offsets are unknown."""
        if not _is_readable(part.name):
            raise UsageError(_describe_missing([part.name]))
        return part.name, 0, record

    def open(self, name: Any, begin: Any) -> Any:
        """Returns the user's own dataset."""
        return self._open_file(name)

    def check(self, part: FilePart) -> None:
        """Counts the records."""
        with tf.Graph().as_default() as graph, untuned():
            dataset = self._open_file(tf.constant(part.name))
            count = dataset.reduce(np.int64(0), lambda number, *_: number + 1)
            with v1.Session(graph=graph, config=v1.ConfigProto(device_count={"GPU": 0})) as session:
                records = int(session.run(count))
        if records != part.records:
            raise UsageError(
                f"file {part.name!r} has {records:,} records, but task.file_shards() was given "
                f"{part.records:,}: give the right number, or have task.files() count"
            )


def check_presence(files: Sequence[str]) -> None:
    """Looks at once whether all files can be read here, and not only when each has its turn.

    Raises:
        UsageError: Some cannot; it names them.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        found = zip(files, pool.map(_is_readable, files), strict=True)
        missing = [name for name, is_there in found if not is_there]
    if missing:
        raise UsageError(_describe_missing(missing))


def _describe_missing(names: Sequence[str]) -> str:
    some = ", ".join(map(repr, names[:_SOME]))
    more = f" and {len(names) - _SOME} more" if len(names) > _SOME else ""
    what = f"the file {some} does" if len(names) == 1 else f"the files {some}{more} do"
    return f"{what} not exist, or cannot be read, on {socket.gethostname()}"


def _is_readable(name: str) -> bool:
    """Returns whether a file can be opened; TensorFlow's datasets would retry without end.

    Raises:
        tf.errors.OpError: It may be there, but its storage does not answer.
    """
    try:
        with tf.io.gfile.GFile(name, "rb") as file:
            file.read(1)
    except GONE:
        return False
    return True


class IndexedFiles:
    """The files of an index, of which any range of records can be read; a `Files`.

    Args:
        index: The index of the files.
        query: The way to read them.
    """

    are_counted = True

    def __init__(self, index: FileIndex, query: FileQuery) -> None:
        self._files = {each.name: each for each in index.files}
        self._format = query.open(index.format)
        self._contents = next((e.contents for e in index.files if e.contents.records), Contents(0))
        self._copies: deque[BinaryIO] = deque(maxlen=2)

    def locate(self, part: FilePart, record: int) -> tuple[str, int, int]:
        """Begins at the record, or at the beginning of a compressed file."""
        self.check(part)
        number, marks = part.first + record, self._files[part.name].contents.marks
        begin = skipped = 0
        if marks:
            at = bisect.bisect_right(marks, number, key=lambda mark: mark[0]) - 1
            begin = self._format.locate(part.name, marks[at], number)
        else:
            skipped = number
        if isinstance(self._format, TFRecords) and not is_for_tensorflow(part.name):
            return self._copy(self._files[part.name], begin, part), 0, skipped
        return part.name, begin, skipped

    def open(self, name: Any, begin: Any) -> Any:
        """Opens it in the way of its format."""
        return self._format.open(name, begin, self._contents)

    def check(self, part: FilePart) -> None:
        """Rejects a file of another size; other hosts may have other times."""
        counted = self._files[part.name].version.size
        try:
            size = find_version(part.name).size
        except GONE as error:
            raise UsageError(
                f"file {part.name!r} does not exist, or cannot be read, on {socket.gethostname()}"
            ) from error
        if size != counted:
            raise UsageError(
                f"file {part.name!r} has {size:,} bytes on {socket.gethostname()}, but {counted:,} "
                "when its records were counted: it may not change while a job reads it"
            )

    def _copy(self, file: IndexedFile, begin: int, part: FilePart) -> str:
        """Copies a file that TensorFlow cannot open to an unnamed file of this host."""
        end = self._end(file, part)
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        self._copies.append(copy)  # The one before is read; it goes with its last reference.
        with open_binary(file.name) as source:
            source.seek(begin)
            if end is None:
                shutil.copyfileobj(source, copy)
            else:
                copy.write(source.read(end - begin))
        copy.flush()
        return f"/proc/self/fd/{copy.fileno()}"

    def _end(self, file: IndexedFile, part: FilePart) -> int | None:
        marks = file.contents.marks
        behind = bisect.bisect_left(marks, part.first + part.records, key=lambda mark: mark[0])
        return marks[behind][1] if behind < len(marks) else None
