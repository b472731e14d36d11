"""Files that were counted, as a task reads them."""

from __future__ import annotations

import bisect
import shutil
import socket
import tempfile
from collections import deque
from typing import Any, BinaryIO

from ...errors import UsageError
from .file_access import find_version, is_for_tensorflow, open_binary
from .file_formats import Contents, TFRecords
from .file_index import FileIndex, FileQuery, IndexedFile
from .files import GONE
from .shard_plan import FilePart


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
