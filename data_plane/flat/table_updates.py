"""Analysis of the ops with which training steps update tables that they look up.

An update consists of the ops next to a table that turn ids, and a gradient for each id, into new
rows. If each of these ops treats rows one by one, the same ops can update several tables that are
stored one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import tensorflow as tf

from ...tf_internals import control_flow_context
from ..placed_graph import Op, Tensor
from .rules import Structure, attributes


class Kind(Enum):
    """The kind of a tensor in an update, by its shape and its meaning."""

    HANDLE = auto()  # The table's or a slot's.
    WHOLE = auto()  # [rows, width], a value for all of the table.
    IDS = auto()  # [n], some of them more than once.
    VALUES = auto()  # [n, width], a row for each of the ids.
    ROW_IDS = auto()  # [m], the ids that differ, in the order of their first occurrence.
    ROWS = auto()  # [m, width], a row for each of these.
    PLACES = auto()  # [n], the index of each id among these.
    SHAPE = auto()  # [1], how many they are.
    COUNT = auto()  # The same as a scalar.
    SHARED = auto()  # A hyperparameter: the same for all tables that are updated alike.


class DoesNotFit(Exception):
    """An update that cannot be joined with others; the message says why."""


# Ops with one correct result for each element (IEEE 754), independent of its position.
_ARITHMETIC = frozenset(
    {"Abs", "Add", "AddV2", "Div", "Mul", "Neg", "RealDiv", "Sqrt", "Square", "Sub"}
)
_ELEMENTWISE = _ARITHMETIC | {"Identity", "Maximum", "Minimum"}
_OF_ROWS = frozenset({Kind.WHOLE, Kind.VALUES, Kind.ROWS})
_H, _S = Kind.HANDLE, Kind.SHARED
_SCATTERED = ((_H, Kind.IDS, Kind.VALUES), (_H, Kind.ROW_IDS, Kind.ROWS))
# Kinds of the inputs that an op may take, by op type, and kinds of its outputs.
_RULES: dict[str, tuple[Sequence[tuple[Kind, ...]], tuple[Kind, ...]]] = {
    "Unique": ([(Kind.IDS,)], (Kind.ROW_IDS, Kind.PLACES)),
    "Shape": ([(Kind.ROW_IDS,)], (Kind.SHAPE,)),
    "Size": ([(Kind.ROW_IDS,)], (Kind.COUNT,)),
    "StridedSlice": ([(Kind.SHAPE, _S, _S, _S)], (Kind.COUNT,)),
    "UnsortedSegmentSum": ([(Kind.VALUES, Kind.PLACES, Kind.COUNT)], (Kind.ROWS,)),
    "ReadVariableOp": ([(_H,)], (Kind.WHOLE,)),
    "AssignVariableOp": ([(_H, Kind.WHOLE)], ()),
    "AssignAddVariableOp": ([(_H, Kind.WHOLE)], ()),
    "AssignSubVariableOp": ([(_H, Kind.WHOLE)], ()),
    "ResourceGather": ([(_H, Kind.ROW_IDS)], (Kind.ROWS,)),
    "ResourceScatterAdd": (_SCATTERED, ()),
    "ResourceScatterSub": (_SCATTERED, ()),
    "ResourceScatterUpdate": (_SCATTERED[1:], ()),
}
_SPARSE_APPLY = "ResourceSparseApply"
_KNOWN = _ELEMENTWISE | _RULES.keys()


@dataclass(frozen=True, eq=False)
class TableUpdate:
    """The update of a table in a training step.

    Attributes:
        handles: Handle ops of the table and of its slots.
        ops: All ops of the update, in topological order.
        kinds: Kinds of the tensors that these ops take.
        ids: The ids, [n].
        values: The row of the gradient for each id, [n, width].
        lookups: The ops that look up rows before the update.
        likeness: A key that is the same for tables that are updated alike.
    """

    handles: tuple[Op, ...]
    ops: tuple[Op, ...]
    kinds: dict[Any, Kind]
    ids: Tensor
    values: Tensor
    lookups: tuple[Op, ...]
    likeness: Any


def find_update(
    table: Op, users: Callable[[Tensor], Iterable[Op]], structure: Structure
) -> TableUpdate:
    """Finds the update of a table.

    Args:
        table: The table's handle op.
        users: Returns the ops of the step that take a tensor, in an order that is the same in every
            process.
        structure: Keys of the hyperparameters.

    Raises:
        DoesNotFit: The table has no update that could be joined with those of other tables.
    """
    return _Search(table, users, structure).update()


class _Search:
    """A search from the ops that write a table back to ids and gradient, and to its slots."""

    def __init__(
        self, table: Op, users: Callable[[Tensor], Iterable[Op]], structure: Structure
    ) -> None:
        self._table = table
        self._users = users
        self._structure = structure
        self._shape = tf.TensorShape(table.get_attr("shape"))
        self._label = f"loc:@{table.name}".encode()
        self._handles: list[Op] = [table]
        self._ops: dict[Op, int] = {}
        self._outputs: dict[Op, tuple[Kind, ...]] = {}
        self._kinds: dict[Any, Kind] = {}
        self._tensors: dict[Kind, Tensor] = {}

    def update(self) -> TableUpdate:
        for handle in self._handles:  # A visit may append slots.
            for op in self._users(handle.outputs[0]):
                if op.type != "ResourceGather":
                    self._visit(op)
        lookups = []
        for handle in self._handles:
            others = [op for op in self._users(handle.outputs[0]) if op not in self._ops]
            if handle is self._table:
                lookups = others
            elif others:
                raise DoesNotFit(f"{others[0].type} uses a slot of it")
        self._check_uses()
        if not {Kind.IDS, Kind.VALUES} <= self._tensors.keys():
            raise DoesNotFit("the step does not update rows of it")
        return TableUpdate(
            tuple(self._handles),
            tuple(self._ops),
            self._kinds,
            self._tensors[Kind.IDS],
            self._tensors[Kind.VALUES],
            tuple(lookups),
            tuple(map(self._describe, self._ops)),
        )

    def _check_uses(self) -> None:
        for op in self._ops:
            if any(user not in self._ops for each in op.outputs for user in each.consumers()):
                raise DoesNotFit(f"the output of {op.type} is used elsewhere")

    def _visit(self, op: Op) -> None:
        if op in self._ops:
            return
        if control_flow_context(op) is not None:
            raise DoesNotFit("it is used in a condition or a loop")
        kinds = tuple(self._kind(tensor) for tensor in op.inputs)
        self._outputs[op] = _made_of(op, kinds)
        self._ops[op] = len(self._ops)

    def _kind(self, tensor: Tensor) -> Kind:
        key = tensor.ref()
        if key not in self._kinds:
            self._kinds[key] = self._find_kind(tensor)
        return self._kinds[key]

    def _find_kind(self, tensor: Tensor) -> Kind:
        op = tensor.op
        if self._is_shared(tensor):
            return Kind.SHARED
        if op.type == "VarHandleOp":
            if op not in self._handles:
                self._handles.append(op)
            return Kind.HANDLE
        if not self._is_next_to_table(op) or op.type not in _KNOWN:
            return self._kind_from_outside(tensor)
        self._visit(op)
        return self._outputs[op][tensor.value_index]

    def _is_shared(self, tensor: Tensor) -> bool:
        op = tensor.op
        if op.type == "VarHandleOp":
            return not self._is_alike(op)
        if not self._is_next_to_table(op):
            return bool(tensor.shape.rank == 0)
        if op.type == "Const":
            return True
        if not op.inputs or (op.op_def.is_stateful and op.type != "ReadVariableOp"):
            return False
        return all(self._is_shared(each) for each in op.inputs)

    def _kind_from_outside(self, tensor: Tensor) -> Kind:
        shape, dtype = tensor.shape, tensor.dtype
        if shape.rank == 1 and dtype in (tf.int32, tf.int64):
            kind = Kind.IDS
        elif shape.rank == 2 and shape.as_list()[1] == self._shape.as_list()[1]:
            kind = Kind.VALUES
        else:
            raise DoesNotFit("its update takes more than ids and rows")
        if self._tensors.setdefault(kind, tensor) is not tensor:
            raise DoesNotFit("its update takes more than ids and rows")
        return kind

    def _is_alike(self, handle: Op) -> bool:
        shape = tf.TensorShape(handle.get_attr("shape"))
        return bool(shape.rank == 2 and shape == self._shape)

    def _is_next_to_table(self, op: Op) -> bool:
        """Returns whether an op is colocated with the table, or takes a handle like it."""
        if any(t.op.type == "VarHandleOp" and self._is_alike(t.op) for t in op.inputs):
            return True
        labels = op.node_def.attr["_class"].list.s if "_class" in op.node_def.attr else ()
        return self._label in labels

    def _describe(self, op: Op) -> Any:
        """Returns a description that is equal for corresponding ops of two tables' updates."""
        waits_for = sorted(self._ops[other] for other in op.control_inputs if other in self._ops)
        inputs = tuple(self._describe_input(tensor) for tensor in op.inputs)
        return op.type, attributes(op), inputs, tuple(waits_for)

    def _describe_input(self, tensor: Tensor) -> Any:
        kind = self._kinds[tensor.ref()]
        if kind is Kind.SHARED:
            return kind, self._structure.key(tensor)
        if kind is Kind.HANDLE:
            return kind, self._handles.index(tensor.op)
        if kind in self._tensors and self._tensors[kind] is tensor:
            return kind, "from outside", tensor.dtype
        return kind, self._ops[tensor.op], tensor.value_index


def _made_of(op: Op, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """Returns the kinds of an op's outputs if the op can serve several tables at once.

    Raises:
        DoesNotFit: Its results would differ for tables stored together.
    """
    if op.type in _ELEMENTWISE:
        return (_elementwise(op, kinds),)
    if op.type.startswith(_SPARSE_APPLY):
        needed = {Kind.HANDLE, Kind.ROWS, Kind.ROW_IDS}
        if needed <= set(kinds) <= needed | {Kind.SHARED} and kinds.count(Kind.ROWS) == 1:
            return ()
        raise DoesNotFit(f"{op.type} does not take sums of rows")
    known, made = _RULES.get(op.type, ((), ()))
    has_batches = op.type == "ResourceGather" and op.get_attr("batch_dims")
    if kinds not in known or has_batches:
        raise DoesNotFit(f"{op.type} is part of its update")
    return made


def _elementwise(op: Op, kinds: tuple[Kind, ...]) -> Kind:
    of_rows = {kind for kind in kinds if kind is not Kind.SHARED}
    shared = (t for t, kind in zip(op.inputs, kinds, strict=True) if kind is Kind.SHARED)
    if len(of_rows) == 1 and of_rows <= _OF_ROWS and all(t.shape.rank == 0 for t in shared):
        return of_rows.pop()
    raise DoesNotFit(f"{op.type} is part of its update")
