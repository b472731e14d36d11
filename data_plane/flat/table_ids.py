"""Ids of rows of several tables as ids of rows of the variable in which these are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..placed_graph import Tensor
from ..sparse.lookups import flat, origin
from .variable import Part

v1 = tf.compat.v1

# For as many ids, where they begin is a constant; for more it is computed in each step.
_LONGEST_CONSTANT = 1 << 16
_UNSIGNED = {tf.int32: tf.uint32, tf.int64: tf.uint64}

# How many ids each table has; a tensor if that is known in the step only.
Sizes = Sequence[int] | Tensor


class TableIds:
    """Joins ids of tables; the same ids of the same tables give the same tensor."""

    def __init__(self) -> None:
        self._joined: dict[Any, tuple[Tensor, Sizes]] = {}

    def join(
        self, parts: Sequence[Part], ids: Sequence[Tensor], device: str
    ) -> tuple[Tensor, Sizes]:
        """Joins ids of some tables.

        Args:
            parts: Where the tables lie.
            ids: Ids of each, of any shape, all of one type.
            device: Where to join them.

        Returns:
            All ids, [n], with -1 for those that are in no table; and how many each table has.
        """
        pieces = [origin(each) for each in ids]
        begins = tuple(part.begin for part in parts)
        key = (begins, tuple(piece.ref() for piece in pieces), device)
        if key not in self._joined:
            with v1.device(device), tf.control_dependencies(None):
                self._joined[key] = _join(parts, pieces)
        return self._joined[key]


def shift(ids: Tensor, begin: Any, rows: Any) -> Tensor:
    """Ids of rows of a table as ids of rows of what stores it; -1 for those that are in no table.

    Args:
        ids: The ids, of any shape.
        begin: Where the table begins: a scalar, or one for each of the ids.
        rows: How many rows it has, likewise.
    """
    begin, rows = (tf.convert_to_tensor(each, ids.dtype) for each in (begin, rows))
    unsigned = _UNSIGNED[ids.dtype]  # In which negative numbers are larger than all others.
    is_inside = tf.less(tf.bitcast(ids, unsigned), tf.bitcast(rows, unsigned))
    shape = ids.shape if ids.shape.is_fully_defined() else []  # A single one takes longer.
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
    """The tensor whose first dimension was taken apart into just these pieces, if there is one."""
    op = pieces[0].op
    is_it = (
        op.type == "Unpack"
        and op.get_attr("axis") == 0
        and len(op.outputs) == len(pieces)
        and all(piece is each for piece, each in zip(pieces, op.outputs, strict=True))
    )
    return op.inputs[0] if is_it else None
