"""The formats of files of records: where records begin, and datasets that begin at one of them."""

from __future__ import annotations

import csv
import itertools
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import tensorflow as tf

from ...errors import UsageError
from .file_access import is_compressed, open_binary

# To find a record, the file is read from the mark before it; there is one mark for so many records.
MARK_RECORDS = 1024
MARK_BYTES = 8 << 20
# Records that cross from Python to TensorFlow at a time.
_CHUNK = 256
# Of a TFRecord: length and its checksum before the data, the data's checksum behind it.
_LENGTH = struct.Struct("<Q")
_HEAD, _TAIL = 12, 4
_VALUE = rb'(?:"(?:[^"]|"")*"|[^",\r\n][^,\r\n]*)?'
# A line of CSV that is surely a record; of others, Python's reader finds the end.
_WHOLE_ROW = re.compile(_VALUE + rb"(?:," + _VALUE + rb")*\r?\n?")
# A longer record is none.
_MOST_BYTES = 1 << 40


@dataclass(frozen=True)
class Contents:
    """The counts of a file.

    Attributes:
        records: How many records it has.
        marks: Numbers of some records, and where to begin to read them; none where a file has to be
            read from its beginning.
        header: The line before the first record; empty if there is none.
        columns: Name and dtype of each column, where records have some.
    """

    records: int
    marks: tuple[tuple[int, int], ...] = ()
    header: str = ""
    columns: tuple[tuple[str, str], ...] = ()


class Format(Protocol):
    """The format of a file's records."""

    def count(self, name: str) -> Contents:
        """Counts the records.

        Raises:
            UsageError: It is no such file, or damaged; the message names it.
            OSError, tf.errors.OpError: It cannot be read.
        """

    def locate(self, name: str, mark: tuple[int, int], record: int) -> int:
        """Finds where a record begins.

        Args:
            name: The file.
            mark: The last one of `Contents.marks` that is not behind the record.
            record: Its number in the file.
        """

    def open(self, name: Any, begin: Any, contents: Contents) -> Any:
        """Makes the dataset with TensorFlow's reader, which compares checksums.

        Args:
            name: The file, a string scalar.
            begin: The result of `locate`, an int64 scalar; 0: the beginning.
            contents: The contents of any file of the dataset.
        """


def mark_places(begins: Iterator[int]) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Counts the places at which records begin, and picks the marks."""
    marks: list[tuple[int, int]] = []
    records = 0
    for begin in begins:
        if not marks or records - marks[-1][0] >= MARK_RECORDS or begin - marks[-1][1] > MARK_BYTES:
            marks.append((records, begin))
        records += 1
    return records, tuple(marks)


class TFRecords:
    """Files of TensorFlow's own format; a record is one serialized string."""

    def count(self, name: str) -> Contents:
        """Goes from record to record by their lengths."""
        with open_binary(name) as file:
            records, marks = mark_places(self._begins(name, file))
        return Contents(records, () if is_compressed(name) else marks)

    def locate(self, name: str, mark: tuple[int, int], record: int) -> int:
        """Finds a record as `count` does, from the mark on."""
        with open_binary(name) as file:
            file.seek(mark[1])
            return next(itertools.islice(self._begins(name, file), record - mark[0], None))

    def open(self, name: Any, begin: Any, contents: Contents) -> Any:
        """Makes the dataset with Python's reader, some records at a time."""
        compression = tf.where(tf.strings.regex_full_match(name, r".*\.gz"), "GZIP", "")
        # `tf.data.TFRecordDataset` cannot begin anywhere else than at the beginning.
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=[name],
            compression_type=compression,
            buffer_size=tf.constant(256 << 10, tf.int64),
            byte_offsets=[begin],
        )
        return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))

    @staticmethod
    def _begins(name: str, file: BinaryIO) -> Iterator[int]:
        begin = file.tell()
        while head := file.read(_HEAD):
            length = _LENGTH.unpack(head[:8])[0] if len(head) == _HEAD else 0
            end = begin + _HEAD + length + _TAIL
            if len(head) < _HEAD or length > _MOST_BYTES or not _ends_at(file, end):
                raise UsageError(
                    f"file {name!r} is damaged, cut off or no TFRecord file: there is no whole "
                    f"record at byte {begin:,}"
                )
            yield begin
            begin = end


def _ends_at(file: BinaryIO, end: int) -> bool:
    file.seek(end - 1)
    return len(file.read(1)) == 1


class Lines:
    """Text files; each line is a record, except blank lines."""

    has_header = False

    def count(self, name: str) -> Contents:
        """Reads the file."""
        with open_binary(name) as file:
            header = self._read_header(name, file)
            records, marks = mark_places(begin for begin, _ in self._entries(name, file))
        return Contents(records, () if is_compressed(name) else marks, header)

    def locate(self, name: str, mark: tuple[int, int], record: int) -> int:
        """Finds a record as `count` does, from the mark on."""
        with open_binary(name) as file:
            file.seek(mark[1])
            entries = self._entries(name, file)
            return next(itertools.islice(entries, record - mark[0], None))[0]

    def open(self, name: Any, begin: Any, contents: Contents) -> Any:
        """Makes the dataset with Python's reader, some records at a time."""
        return tf.data.Dataset.from_generator(
            self._chunks, output_signature=tf.TensorSpec([None], tf.string), args=(name, begin)
        ).unbatch()

    def _chunks(self, name: bytes, begin: int) -> Iterator[Any]:
        with open_binary(name.decode()) as file:
            if begin:
                file.seek(begin)
            else:
                self._read_header(name.decode(), file)
            records = (line.rstrip(b"\r\n") for _, line in self._entries(name.decode(), file))
            while chunk := list(itertools.islice(records, _CHUNK)):
                yield np.array(chunk, object)

    def _read_header(self, name: str, file: BinaryIO) -> str:
        if not self.has_header:
            return ""
        _, line = next(self._entries(name, file), (0, b""))
        return line.decode("utf-8-sig", "replace").rstrip()

    def _entries(self, name: str, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """Yields each record's offset, and its bytes with the end of its last line."""
        begin = file.tell()
        for line in file:
            if not line.isspace():
                yield begin, line
            begin += len(line)


class Csv(Lines):
    """Lines of values with commas between them; within quotes, an end of a line ends no record.

    Args:
        has_header: Whether the first line of each file names the columns.
    """

    def __init__(self, has_header: bool) -> None:
        self.has_header = has_header

    def _entries(self, name: str, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        begin = file.tell()
        for line in file:
            record = line
            is_plain = b'"' not in line and b"\r" not in line.rstrip(b"\r\n")
            if not is_plain and not _WHOLE_ROW.fullmatch(line):
                record = self._complete(name, begin, line, file)
            if record.rstrip(b"\r\n"):
                yield begin, record
            begin += len(record)

    @staticmethod
    def _complete(name: str, begin: int, line: bytes, file: BinaryIO) -> bytes:
        """Adds the lines that belong to the same record."""
        taken: list[bytes] = []

        def lines() -> Iterator[str]:
            for each in itertools.chain([line], file):
                taken.append(each)
                yield each.decode("latin-1")
            raise csv.Error("the file ends within quotes")

        try:
            next(csv.reader(lines()))
        except csv.Error as error:
            raise UsageError(f"file {name!r}: record at byte {begin:,}: {error}") from error
        return b"".join(taken)


NAMES = {
    "tfrecord": ("tfrecord", "tfrecords", "tfrec"),
    "csv": ("csv",),
    "jsonl": ("jsonl", "ndjson"),
    "parquet": ("parquet", "pq"),
}


def guess_format(names: Sequence[str]) -> str:
    """Returns the format that the names of files say.

    Raises:
        UsageError: They say none, or more than one.
    """
    ends = {name.removesuffix(".gz").rpartition(".")[2].lower() for name in names}
    found = {format for format, known in NAMES.items() for end in ends if end in known}
    if len(found) != 1 or not ends <= set(NAMES[next(iter(found))]):
        raise UsageError(
            f"the format of {names[0]!r} is not clear from its name: give format=, one of "
            f"{', '.join(NAMES)}"
        )
    return found.pop()
