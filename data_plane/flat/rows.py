"""`StoredTables`: one stored variable whose rows are those of several tables, and ids in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ...tf_internals import set_input
from ..placed_graph import Op, Tensor
from ..sparse.lookups import flat, origin
from .variable import FlatVariable, Part

v1 = tf.compat.v1

# Up to this many ids, the offset of each is a constant; above, it is computed in each step.
_LONGEST_CONSTANT = 1 << 16
_UNSIGNED = {tf.int32: tf.uint32, tf.int64: tf.uint64}

# The number of ids of each table; a tensor if it is known in the step only.
Sizes = Sequence[int] | Tensor
raw = tf.raw_ops
# TensorFlow aligns variables to this many bytes. If tables begin at such multiples as well, each
# row is treated with the same vector instructions as in a table alone, so results keep every bit.
_ALIGNMENT = 64


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


def lay_out(tables: Sequence[Sequence[Op]], role: int) -> list[Part]:
    """Returns the parts that tables, or one kind of their slots, take in a stored variable.

    Args:
        tables: The handle ops of each table and its slots.
        role: The index of the table or slot among these handles; rows are the same for each role.
    """
    parts, begin = [], 0
    for handles in tables:
        rows, width = tf.TensorShape(handles[role].get_attr("shape")).as_list()
        end = begin + padded_rows(handles[role])
        parts.append(Part(handles[role], begin, end, rows * width))
        begin = end
    return parts


def padded_rows(handle: Op) -> int:
    """Returns the rows that a table takes, empty ones for the alignment included."""
    rows, width = tf.TensorShape(handle.get_attr("shape")).as_list()
    step = _ALIGNMENT // math.gcd(_ALIGNMENT, width * int(handle.get_attr("dtype").size))
    return -(-rows // step) * step


class StoredTables(FlatVariable):
    """A stored variable that is never read in whole, except by an update of all of its rows.

    TensorFlow copies a variable with writes to single rows whenever it is read. So a read of one
    table gathers the table's rows, and copies no others.
    """

    def to_be_saved(self, part: Part) -> Tensor:
        """Returns the handle of a small variable, since the stored one is read by rows only."""
        return self.flag(part)

    def look_up(self, ids: Tensor, name: str) -> Tensor:
        """Returns rows of the stored variable by their numbers in it, [n, width]."""
        with v1.device(self._device):
            return raw.ResourceGather(
                resource=self.handle, indices=ids, dtype=self.dtype, name=name
            )

    def redirect_lookup(self, part: Part, lookup: Op) -> None:
        """Redirects an op that looks up rows of a logical variable to the stored one.

        The op fails if the logical variable is not initialized, or an id is not in it.
        """
        ids = lookup.inputs[1]
        with v1.device(self._device):
            shape = raw.ReadVariableOp(resource=self.flag(part), dtype=tf.int32)
            set_input(lookup, 1, shift(ids, part.begin, tf.cast(shape[0], ids.dtype)))
        set_input(lookup, 0, self.handle)

    def _settle(self, written: Op) -> Op:
        return written

    def _read_part(self, part: Part, after: Iterable[Op]) -> Tensor:
        with v1.device(self._device), tf.control_dependencies(list(after)):
            return self._gather(part)

    def _read_part_now(self, part: Part, after: Op) -> Tensor:
        with tf.control_dependencies([after]):
            return self._gather(part)

    def _gather(self, part: Part) -> Any:
        ids = tf.range(part.begin, part.begin + part.size // self.width)
        return raw.ResourceGather(resource=self.handle, indices=ids, dtype=self.dtype)
