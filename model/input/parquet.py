"""Parquet files, as columns of tensors; they are read with PyArrow."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import UsageError
from .file_access import open_binary
from .file_formats import Contents

try:
    import pyarrow as arrow
    from pyarrow import parquet
except ImportError as error:
    raise UsageError(
        "format='parquet' needs PyArrow, which is not installed: pip install 'paramserve[parquet]'"
    ) from error

# Rows that cross from Python to TensorFlow at a time.
_CHUNK = 1024


class Parquet:
    """Files of columns; a record is a row, and a row group is read as a whole.

    Args:
        columns: Names of the columns to read; none: all.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = list(columns)

    def count(self, name: str) -> Contents:
        """Reads the metadata at the end of the file."""
        with open_binary(name) as file:
            try:
                whole = parquet.ParquetFile(file)
            except arrow.ArrowInvalid as error:
                raise UsageError(f"{name!r} is damaged or no Parquet file: {error}") from error
            metadata, schema = whole.metadata, whole.schema_arrow
        if missing := [column for column in self._columns if column not in schema.names]:
            has = ", ".join(schema.names)
            raise UsageError(f"file {name!r} has no column {missing[0]!r}: it has {has}")
        columns = tuple(
            (column, _dtype_of(name, column, schema.field(column).type).name)
            for column in self._columns or schema.names
        )
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        firsts = np.cumsum([0, *sizes])[:-1].tolist()
        marks = tuple((first, first) for first, size in zip(firsts, sizes, strict=True) if size)
        return Contents(metadata.num_rows, marks, columns=columns)

    def locate(self, name: str, mark: tuple[int, int], record: int) -> int:
        """Returns the number of the row."""
        return record

    def open(self, name: Any, begin: Any, contents: Contents) -> Any:
        """Makes the dataset with Python's reader, some rows at a time."""
        dtypes = {column: tf.as_dtype(dtype) for column, dtype in contents.columns}
        chunks = functools.partial(_chunks, dtypes)
        signature = {column: tf.TensorSpec([None], dtype) for column, dtype in dtypes.items()}
        return tf.data.Dataset.from_generator(
            chunks, output_signature=signature, args=(name, begin)
        ).unbatch()


def _chunks(dtypes: dict[str, tf.DType], name: bytes, begin: int) -> Iterator[dict[str, Any]]:
    with open_binary(name.decode()) as file:
        for batch in _batches(parquet.ParquetFile(file), int(begin), list(dtypes)):
            yield {
                column: _values(batch.column(number), dtype, column)
                for number, (column, dtype) in enumerate(dtypes.items())
            }


def _batches(file: Any, begin: int, columns: list[str]) -> Iterator[Any]:
    """Yields the rows from one on."""
    first = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first + rows > begin:
            skipped = max(0, begin - first)
            for batch in file.iter_batches(_CHUNK, row_groups=[group], columns=columns):
                if batch.num_rows > skipped:
                    yield batch.select(columns).slice(skipped)
                skipped = max(0, skipped - batch.num_rows)
        first += rows


def _dtype_of(name: str, column: str, kind: Any) -> tf.DType:
    types = arrow.types
    if types.is_string(kind) or types.is_large_string(kind):
        return tf.string
    if types.is_binary(kind) or types.is_large_binary(kind):
        return tf.string
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return tf.as_dtype(kind.to_pandas_dtype())
    raise UsageError(
        f"file {name!r}: column {column!r} is of type {kind}, expected numbers, strings or bytes: "
        "leave it out with columns=, or write it as one of those"
    )


def _values(array: Any, dtype: tf.DType, column: str) -> Any:
    """Returns one column's values; a missing number becomes NaN."""
    if dtype == tf.string:
        missing = "" if arrow.types.is_string(array.type) else b""
        return np.array([missing if v is None else v for v in array.to_pylist()], object)
    if array.null_count and not dtype.is_floating:
        raise ValueError(f"column {column!r} of {dtype.name} has rows without a value")
    return array.to_numpy(zero_copy_only=False).astype(dtype.as_numpy_dtype)
