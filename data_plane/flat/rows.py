"""`StoredTables`: one stored variable whose rows are those of several tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from ...tf_internals import set_input
from ..placed_graph import Op, Tensor
from .table_ids import shift
from .variable import FlatVariable, Part

v1 = tf.compat.v1
raw = tf.raw_ops

# TensorFlow aligns variables to this many bytes. If tables begin at such multiples as well, each
# row is treated with the same vector instructions as in a table alone, so results keep every bit.
_ALIGNMENT = 64


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
