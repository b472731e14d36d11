"""Lookups in tables and the sums of their gradients, found in a graph."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import tensorflow as tf

from ..placed_graph import HOME, Op, PlacedGraph, Tensor, is_reference

v1 = tf.compat.v1

_GATHERS = ("ResourceGather", "GatherV2", "Gather")
# Ops between a gradient and its sum; none of them makes a tensor larger.
_MOVABLE = (
    "Cast",
    "Const",
    "Identity",
    "Reshape",
    "Shape",
    "StridedSlice",
    "Unique",
    "UnsortedSegmentSum",
)
_Uses: TypeAlias = "list[tuple[Op, int]]"


@dataclass
class Report:
    """Counts of the lookups and gradients that were treated or left alone.

    Attributes:
        sums: Gradients whose equal rows are summed before they cross.
        lookups: Lookups of which each row crosses once.
        left_alone: Number of lookups and gradients that were left as they were, by reason.
    """

    sums: int = 0
    lookups: int = 0
    left_alone: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, eq=False)
class Sum:
    """A gradient whose rows for equal ids are summed next to the table.

    Attributes:
        total: The op that sums.
        unique: The op that finds equal ids.
        ops: All ops that can run on the worker as well: these two, and those for their sizes.
    """

    total: Op
    unique: Op
    ops: frozenset[Op]

    @property
    def values(self) -> Tensor:
        """The gradient's row for each id, [ids, width]."""
        return self.total.inputs[0]

    @property
    def bytes(self) -> int | None:
        """Bytes of the gradient before it is summed; None if unknown."""
        count = self.values.shape.num_elements()
        return None if count is None else int(count * self.values.dtype.size)


@dataclass(frozen=True, eq=False)
class Lookup:
    """A worker's lookup of rows in a table.

    Attributes:
        gather: The lookup op on the parameter server.
        width: The shape of a row.
    """

    gather: Op
    width: tf.TensorShape

    @property
    def ids(self) -> Tensor:
        """The ids, of any shape."""
        return self.gather.inputs[1]

    @property
    def rows(self) -> Tensor:
        """The row for each id."""
        return self.gather.outputs[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(self.width.num_elements() * self.rows.dtype.size)

    def gather_for(self, ids: Tensor) -> Tensor:
        """Returns the rows of the same table for other ids, [n]."""
        table, dtype = self.gather.inputs[0], self.rows.dtype
        name = self.gather.name.rpartition("/")[2]  # An error about an id names the user's op.
        if self.gather.type == "ResourceGather":
            rows = tf.raw_ops.ResourceGather(resource=table, indices=ids, dtype=dtype, name=name)
        else:
            rows = tf.raw_ops.GatherV2(params=table, indices=ids, axis=0, name=name)
        rows.set_shape([None, *self.width.as_list()])
        return rows


class Tables:
    """The lookups and sums of a graph that may be changed.

    Args:
        placed: The graph.
        unchanged: Ops that stay as they are, with the ops they need.
        report: Receives the reasons why other lookups and sums have to stay as they are.
    """

    def __init__(self, placed: PlacedGraph, unchanged: Iterable[Op], report: Report) -> None:
        self.placed = placed
        self.report = report
        self._unchanged = placed.needed_by(unchanged)

    @cached_property
    def sums(self) -> list[Sum]:
        """Sums on parameter servers of gradients from the worker."""
        sums = []
        for op in self.placed.ops:
            if op.type == "UnsortedSegmentSum" and self._is_remote(op):
                unique = op.inputs[1].op
                if unique.type == "Unique":
                    moved = self._what_moves(op)
                    if isinstance(moved, str):
                        self.report.left_alone[moved] += 1
                    else:
                        sums.append(Sum(op, unique, frozenset(moved)))
        return sums

    @cached_property
    def lookups(self) -> list[Lookup]:
        """Lookups on parameter servers with ids from the worker."""
        lookups = []
        for op in self.placed.ops:
            if op.type not in _GATHERS or not self._is_remote(op):
                continue
            if self._is_remote(op.inputs[1].op):
                continue
            reason = self._reason_to_leave(op)
            if reason:
                self.report.left_alone[reason] += 1
            else:
                width = op.outputs[0].shape[op.inputs[1].shape.rank :]
                lookups.append(Lookup(op, width))
        return lookups

    def uses(self, tensor: Tensor) -> _Uses:
        """Returns the ops of the training steps that take a tensor, with the index of the input."""
        return self._all_uses[tensor.op][tensor.value_index]

    @cached_property
    def _all_uses(self) -> dict[Op, dict[int, _Uses]]:
        uses: dict[Op, dict[int, _Uses]] = defaultdict(lambda: defaultdict(list))
        for op in self.placed.ops:
            for index, tensor in enumerate(op.inputs):
                uses[tensor.op][tensor.value_index].append((op, index))
        return uses

    @cached_property
    def _awaited(self) -> set[Op]:
        """Ops that are the source of a control edge."""
        return {other for op in self.placed.ops for other in op.control_inputs}

    def _is_remote(self, op: Op) -> bool:
        return self.placed.task(op) != HOME

    def _is_free(self, op: Op) -> bool:
        """Returns whether an op may be replaced or moved: it has no control edges or fixed uses."""
        return not (
            op in self._unchanged
            or op in self._awaited
            or op.control_inputs
            or self.placed.in_control_flow(op)
        )

    def _what_moves(self, total: Op) -> set[Op] | str:
        """Returns the ops that compute a sum from the worker's tensors, or why it has to stay."""
        moved: set[Op] = set()
        rest = [total]
        while rest:
            op = rest.pop()
            if op in moved or not self._is_remote(op):
                continue
            if op.type not in _MOVABLE:
                return "the gradient is made next to the table"
            if not self._is_free(op):
                return "in a loop or a condition, or waited for"
            moved.add(op)
            rest.extend(tensor.op for tensor in op.inputs)
        for op in moved - {total}:
            for output, uses in self._all_uses[op].items():
                # The distinct ids cross to the table in any case; other outputs would cross only
                # because of the move.
                is_ids = op.type == "Unique" and output == 0
                if not is_ids and any(user not in moved for user, _ in uses):
                    return "parts of the sum are used elsewhere"
        return moved

    def _reason_to_leave(self, gather: Op) -> str | None:
        if is_reference(gather.inputs[0].dtype):
            return "the table is read by reference"
        if gather.type != "Gather" and gather.get_attr("batch_dims"):
            return "the lookup has batch dimensions"
        if gather.type == "GatherV2" and tf.get_static_value(gather.inputs[2]) != 0:
            return "the lookup is not by row"
        users = [user for user, _ in self.uses(gather.outputs[0])]
        if not self._is_free(gather) or any(map(self.placed.in_control_flow, users)):
            return "in a loop or a condition, or waited for"
        if any(self._is_remote(user) for user in users):
            return "rows are used next to the table"
        rows, ids = gather.outputs[0].shape, gather.inputs[1].shape
        if rows.rank is None or ids.rank is None or not rows[ids.rank :].is_fully_defined():
            return "the shape is not known"
        return None


def origin(ids: Tensor) -> Tensor:
    """Returns the tensor with the same ids in the same order, before it was reshaped."""
    while ids.op.type in ("Reshape", "Identity") and not ids.op.control_inputs:
        ids = ids.op.inputs[0]
    return ids


def flat(ids: Tensor) -> Tensor:
    """Returns the ids in one dimension, [n]."""
    return ids if ids.shape.rank == 1 else tf.reshape(ids, [-1])


def shaped(rows: Tensor, lookup: Lookup) -> Tensor:
    """Returns rows [n, width] in the shape of a lookup's output."""
    ids = lookup.ids
    if ids.shape.rank != 1:
        rows = tf.reshape(rows, _static_or_dynamic_shape(lookup))
    rows.set_shape(lookup.rows.shape)
    return rows


def _static_or_dynamic_shape(lookup: Lookup) -> Sequence[int] | Tensor:
    shape = lookup.rows.shape
    if shape.is_fully_defined():
        return shape.as_list()
    return tf.concat([tf.shape(lookup.ids), lookup.width.as_list()], 0)
