"""Translation of ids in several tables to ids in the variable that stores the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..placed_graph import Tensor
from ..sparse.lookups import flat, origin
from .variable import Part

v1 = tf.compat.v1

# Up to this many ids, the offset of each is a constant; above, it is computed in each step.
_LONGEST_CONSTANT = 1 << 16
_UNSIGNED = {tf.int32: tf.uint32, tf.int64: tf.uint64}

# The number of ids of each table; a tensor if it is known in the step only.
Sizes = Sequence[int] | Tensor


class TableIds:
    """Joint ids of tables; the same ids of the same tables give the same tensor."""

    def __init__(self) -> None:
        self._joined: dict[Any, tuple[Tensor, Sizes]] = {}

    def join(
        self, parts: Sequence[Part], ids: Sequence[Tensor], device: str
    ) -> tuple[Tensor, Sizes]:
        """Joins ids of some tables.

        Args:
            parts: The tables' parts of the stored variable.
            ids: Ids in each table, of any shape, all of one dtype.
            device: The device that joins them.

        Returns:
            All ids, [n], with -1 for ids outside of their table; and the number of each table's
            ids.
        """
        pieces = [origin(each) for each in ids]
        begins = tuple(part.begin for part in parts)
        key = (begins, tuple(piece.ref() for piece in pieces), device)
        if key not in self._joined:
            with v1.device(device), tf.control_dependencies(None):
                self._joined[key] = _join(parts, pieces)
        return self._joined[key]


def shift(ids: Tensor, begin: Any, rows: Any) -> Tensor:
    """Returns a table's ids as ids of the stored variable; -1 for ids outside of the table.

    Args:
        ids: The ids, of any shape.
        begin: The table's first row: a scalar, or one for each id.
        rows: The table's number of rows: a scalar, or one for each id.
    """
    begin, rows = (tf.convert_to_tensor(each, ids.dtype) for each in (begin, rows))
    # As unsigned numbers, negative ids are larger than all others: one comparison checks both ends.
    unsigned = _UNSIGNED[ids.dtype]
    is_inside = tf.less(tf.bitcast(ids, unsigned), tf.bitcast(rows, unsigned))
    shape = ids.shape if ids.shape.is_fully_defined() else []  # To broadcast a scalar takes longer.
    return tf.where(is_inside, ids + begin, tf.constant(-1, ids.dtype, shape))


def _join(parts: Sequence[Part], pieces: Sequence[Tensor]) -> tuple[Tensor, Sizes]:
    width = parts[0].shape.as_list()[1]
    begins = np.array([part.begin for part in parts], np.int64)
    rows = np.array([part.size // width for part in parts], np.int64)
    sizes = [piece.shape.num_elements() for piece in pieces]
    joined = _unpacked(pieces)
    if joined is None:
        joined = pieces[0] if len(pieces) == 1 else tf.concat([flat(p) for p in pieces], 0)
    joined = flat(joined)
    if len(parts) == 1:
        return shift(joined, begins[0], rows[0]), sizes
    if None not in sizes and sum(sizes) <= _LONGEST_CONSTANT:
        return shift(joined, np.repeat(begins, sizes), np.repeat(rows, sizes)), sizes
    if None in sizes:
        sizes = tf.stack([tf.size(piece) for piece in pieces])
    places = tf.range(tf.size(joined))
    table = tf.searchsorted(tf.cumsum(sizes), places, side="right")
    dtype = joined.dtype.as_numpy_dtype
    begin_of, rows_of = (tf.gather(each.astype(dtype), table) for each in (begins, rows))
    return shift(joined, begin_of, rows_of), sizes


def _unpacked(pieces: Sequence[Tensor]) -> Tensor | None:
    """Returns the tensor that was unstacked into exactly these pieces; None if there is none."""
    op = pieces[0].op
    is_it = (
        op.type == "Unpack"
        and op.get_attr("axis") == 0
        and len(op.outputs) == len(pieces)
        and all(piece is each for piece, each in zip(pieces, op.outputs, strict=True))
    )
    return op.inputs[0] if is_it else None
