"""The index of an input's files: how many records each has, and where some of them begin."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import logging
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from ...errors import JobFailed, UsageError
from ...reasons import reason_of
from .file_access import FileVersion, find_files, find_version, is_compressed
from .file_formats import NAMES, Contents, Csv, Format, Lines, TFRecords, guess_format
from .shard_plan import FilePart

log = logging.getLogger(__name__)

# Files that are counted at a time: most of the time is spent waiting for the storage.
THREADS = 16
SAY_SECS = 5.0


@dataclass(frozen=True)
class FileQuery:
    """A query for files, with the way to read them.

    Attributes:
        patterns: Names or patterns.
        format: One of `file_formats.NAMES`; empty: by the files' names.
        header: Whether the first line of each CSV file names the columns; None: it should.
        columns: Names of the Parquet columns to read; empty: all.

    Raises:
        UsageError: The format is not known, or does not support an option.
    """

    patterns: tuple[str, ...]
    format: str = ""
    header: bool | None = None
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.patterns:
            raise UsageError("no file is given: give a name, a pattern as 'data/*.csv', or several")
        if self.format and self.format not in NAMES:
            raise UsageError(f"format={self.format!r}: expected one of {', '.join(NAMES)}")

    def to_json(self) -> str:
        """Returns the query as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FileQuery:
        """Returns the inverse of `to_json`."""
        values: dict[str, Any] = json.loads(text)
        lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        return cls(**{**values, **lists})

    @property
    def digest(self) -> str:
        """A short name that no other query has."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def open(self, format: str) -> Format:
        """Returns the format of the files.

        Raises:
            UsageError: The format does not support an option, or a package for it is missing.
        """
        if self.header is not None and format != "csv":
            raise UsageError(
                f"header={self.header} with format={format!r}: only CSV files have one"
            )
        if self.columns and format != "parquet":
            raise UsageError(f"columns= with format={format!r}: only Parquet files have columns")
        if format == "tfrecord":
            return TFRecords()
        if format == "csv":
            return Csv(self.header is not False)
        if format == "jsonl":
            return Lines()
        from .parquet import Parquet  # It needs a package of its own.

        return Parquet(self.columns)


@dataclass(frozen=True)
class IndexedFile:
    """One counted file.

    Attributes:
        name: Its name.
        version: Its state at that time.
        contents: Its contents.
    """

    name: str
    version: FileVersion
    contents: Contents


@dataclass(frozen=True)
class FileIndex:
    """The files of an input.

    Attributes:
        format: Their format.
        files: Each of them, by name.
    """

    format: str
    files: tuple[IndexedFile, ...]

    def to_json(self) -> str:
        """Returns the index as text."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> FileIndex:
        """Returns the inverse of `to_json`."""
        values = json.loads(text)
        return cls(values["format"], tuple(map(_file_from, values["files"])))

    def to_bytes(self) -> bytes:
        """Returns the index as it travels."""
        return zlib.compress(self.to_json().encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> FileIndex:
        """Returns the inverse of `to_bytes`."""
        return cls.from_json(zlib.decompress(data).decode())

    @property
    def records(self) -> int:
        """Records in all files."""
        return sum(each.contents.records for each in self.files)

    def cut(self, shard_records: int) -> tuple[FilePart, ...]:
        """Cuts the files into parts.

        Args:
            shard_records: Records of a part, where a file can be read from there on; its last part
                may be smaller. A compressed file is one part.
        """
        return tuple(part for each in self.files for part in self._cut(each, shard_records))

    def _cut(self, file: IndexedFile, size: int) -> list[FilePart]:
        records, marks = file.contents.records, file.contents.marks
        if not records or is_compressed(file.name):
            return [FilePart(file.name, records)] if records else []
        starts = list(range(0, records, max(1, size)))
        if self.format == "parquet":  # A row group is read as a whole.
            starts = [0]
            for first, _ in marks:
                if first - starts[-1] >= size:
                    starts.append(first)
        ends = [*starts[1:], records]
        return [FilePart(file.name, e - s, s) for s, e in zip(starts, ends, strict=True)]


def _file_from(values: dict[str, Any]) -> IndexedFile:
    contents: dict[str, Any] = values["contents"]
    lists = {name: tuple(map(tuple, v)) for name, v in contents.items() if isinstance(v, list)}
    version = FileVersion(**values["version"])
    return IndexedFile(values["name"], version, Contents(**{**contents, **lists}))


def count_files(
    query: FileQuery,
    kept: FileIndex | None = None,
    *,
    say: Callable[[str], None] = log.info,
    cancelled: Callable[[], bool] = lambda: False,
) -> FileIndex:
    """Makes the index of the files that match a query.

    Args:
        query: The query.
        kept: An earlier index of the same query; unchanged files are not counted again.
        say: Receives progress messages.
        cancelled: Returns whether to give up.

    Raises:
        NothingFound: No file matches.
        UsageError: A file is not of the format, is damaged, or cannot be read; or none has records.
        JobFailed: `cancelled` returned True.
    """
    names = find_files(query.patterns)
    format = query.format or guess_format(names)
    reader = query.open(format)
    known = {each.name: each for each in kept.files} if kept and kept.format == format else {}

    def look(name: str) -> IndexedFile:
        try:
            version = find_version(name)
            before = known.get(name)
            if before is not None and before.version == version:
                return before
            return IndexedFile(name, version, reader.count(name))
        except UsageError:
            raise
        except Exception as error:  # Storages raise errors of their own libraries.
            raise UsageError(f"file {name!r} cannot be read: {reason_of(error)}") from error

    with ThreadPoolExecutor(THREADS) as pool:
        tasks = [pool.submit(look, name) for name in names]
        try:
            said = time.monotonic()
            for done, task in enumerate(as_completed(tasks)):
                task.result()
                if cancelled():
                    raise JobFailed("stopped while the records of the input were counted")
                if time.monotonic() - said > SAY_SECS:
                    said = time.monotonic()
                    say(f"counting records: {done + 1:,} of {len(names):,} files")
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    files = tuple(task.result() for task in tasks)
    _check(query, format, files)
    counted = [each for each in files if each is not known.get(each.name)]
    index = FileIndex(format, files)
    say(f"{len(files):,} files have {index.records:,} records; {len(counted):,} were counted now")
    return index


def describe_changes(before: FileIndex, after: FileIndex) -> str:
    """Describes new and missing files, and those with another number of records; empty if none."""
    counts = [{each.name: each.contents.records for each in i.files} for i in (before, after)]
    names = sorted({*counts[0], *counts[1]})
    changes = [
        f"{name} ({counts[0].get(name, 'not there')} then, {counts[1].get(name, 'gone')} now)"
        for name in names
        if counts[0].get(name) != counts[1].get(name)
    ]
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return ", ".join(changes[:3]) + more


def _check(query: FileQuery, format: str, files: Sequence[IndexedFile]) -> None:
    if not any(each.contents.records for each in files):
        raise UsageError(f"the files {', '.join(query.patterns)} have no records")
    if empty := [each.name for each in files if not each.contents.records]:
        log.warning("%d files have no records, as %s", len(empty), empty[0])
    first = next(each for each in files if each.contents.records)
    for each in files:
        if not each.contents.records:
            continue
        if each.contents.columns != first.contents.columns:
            raise UsageError(
                f"files {first.name!r} and {each.name!r} have other columns: "
                f"{first.contents.columns} and {each.contents.columns}"
            )
        if each.contents.header != first.contents.header:
            raise UsageError(
                f"files {first.name!r} and {each.name!r} begin with other lines, "
                f"{first.contents.header!r} and {each.contents.header!r}: if they have no header, "
                "give header=False"
            )
    header = first.contents.header
    if format == "csv" and query.header is None and _is_data(header):
        raise UsageError(
            f"file {first.name!r} begins with {header!r}, which looks like a record and not like "
            "the names of columns: give header=False, or header=True if it is a header"
        )


def _is_data(line: str) -> bool:
    """Returns whether one of a line's values is a number, which no column is called."""
    values = next(csv.reader([line]), [])
    return any(_is_number(value) for value in values)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
