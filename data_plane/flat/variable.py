"""`FlatVariable`: one stored variable whose rows are the values of several logical ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from ..placed_graph import Op, Tensor

v1 = tf.compat.v1
raw = tf.raw_ops

# TensorFlow's own name (`ResourceHandle::ANONYMOUS_NAME`) for a resource that lives for one run.
_NEW_IN_EACH_RUN = "cd2c89b7-88b7-44c8-ad83-06c2a9158347"


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of one logical variable.

    Attributes:
        handle: The logical variable's handle op, which has no value of its own.
        begin: The first row.
        end: The row after the last one.
        size: Elements; the rest of the last row is padding, which is never used.
    """

    handle: Op
    begin: int
    end: int
    size: int

    @property
    def shape(self) -> Any:
        """The logical variable's shape."""
        return tf.TensorShape(self.handle.get_attr("shape"))


class FlatVariable:
    """A stored variable of shape [rows, width], made of several logical ones.

    Args:
        name: The shared name: tasks that use the same name share the variable.
        parts: The rows of each logical variable, in order.
        width: Elements of a row.
    """

    def __init__(self, name: str, parts: Sequence[Part], width: int) -> None:
        first = parts[0].handle
        self.parts = parts
        self.width = width
        self.rows = parts[-1].end
        self.dtype = first.get_attr("dtype")
        self._name = name
        self._device = first.device
        self._container = first.get_attr("container")
        self._reads: dict[frozenset[Op], Tensor] = {}
        self._split: dict[tuple[Any, str], Sequence[Tensor]] = {}
        self._values: dict[tuple[Any, str, Part], Tensor] = {}
        self._flags: dict[Part, Tensor] = {}
        self._constants: dict[Any, Tensor] = {}
        self._index = {part: index for index, part in enumerate(parts)}

    @cached_property
    def handle(self) -> Tensor:
        """The handle, a scalar resource."""
        return self._new_handle(self.dtype, [self.rows, self.width], self._name)

    def read(self, after: Iterable[Op]) -> Tensor:
        """Returns all rows, read after some ops; the same tensor for the same ops."""
        key = frozenset(after)
        if key not in self._reads:
            with v1.device(self._device), tf.control_dependencies(list(key)):
                self._reads[key] = raw.ReadVariableOp(resource=self.handle, dtype=self.dtype)
        return self._reads[key]

    def value(self, part: Part, after: Iterable[Op], device: str) -> Tensor:
        """Returns a logical variable's value, read after some ops, on a device."""
        rows = self.read(after)
        key = (rows.ref(), device, part)
        if key not in self._values:
            shape = self._constant(part.shape.as_list(), device)
            with v1.device(device):
                self._values[key] = tf.reshape(self._piece(part, rows, device), shape)
        return self._values[key]

    def stand_in(self, part: Part, after: Iterable[Op]) -> tuple[Tensor, Op]:
        """Adds a variable that, in each run, is a copy of a logical one.

        Returns:
            The copy's handle, and the op that fills it. The op fails if the logical variable is not
            initialized.
        """
        handle = self._new_handle(self.dtype, part.shape, _NEW_IN_EACH_RUN)
        piece = self._read_part(part, after)
        with v1.device(self._device):
            shape = raw.ReadVariableOp(resource=self.flag(part), dtype=tf.int32)
            return handle, raw.AssignVariableOp(resource=handle, value=tf.reshape(piece, shape))

    def stand_in_if_set(self, part: Part, after: Sequence[Op]) -> tuple[Tensor, Op]:
        """Adds such a copy that stays without a value if the logical variable has none."""
        handle = self._new_handle(self.dtype, part.shape, _NEW_IN_EACH_RUN)
        with v1.device(self._device), tf.control_dependencies(after):
            is_set = raw.VarIsInitializedOp(resource=self.flag(part))
            absent, present = raw.Switch(data=tf.constant(0), pred=is_set)
            value = tf.reshape(self._read_part_now(part, tf.identity(present).op), part.shape)
            copied = raw.AssignVariableOp(resource=handle, value=value)
            with tf.control_dependencies([copied]):
                present = tf.identity(present)
            return handle, raw.Merge(inputs=[absent, present]).output.op

    def write(self, part: Part, value: Tensor, after: Sequence[Op]) -> Op:
        """Returns an op that writes a logical variable, after some ops."""
        # The flag is set last: a variable counts as initialized only when its rows are written.
        with v1.device(self._device), tf.control_dependencies([*after, self._created]):
            if not value.shape.is_fully_defined():
                value = tf.ensure_shape(value, part.shape)
            written = raw.ResourceStridedSliceAssign(
                ref=self.handle,
                begin=self._constant([part.begin]),
                end=self._constant([part.end]),
                strides=self._constant([1]),
                value=self._pad(part, value, self._device),
            )
            with tf.control_dependencies([self._settle(written)]):
                shape = self._constant(part.shape.as_list())
                return raw.AssignVariableOp(resource=self.flag(part), value=shape)

    def nowhere(self, part: Part) -> Tensor:
        """Returns the handle of a scratch variable; its value is gone after the run."""
        return self._new_handle(self.dtype, part.shape, _NEW_IN_EACH_RUN)

    def flag(self, part: Part) -> Tensor:
        """Returns the handle of a variable that is initialized when the logical one is.

        Its value is the logical variable's shape. Reads of the logical variable take the shape from
        it, so they fail if the logical variable is not initialized.
        """
        if part not in self._flags:
            logical = part.handle.get_attr("shared_name").decode()
            rank = [part.shape.rank]
            self._flags[part] = self._new_handle(tf.int32, rank, f"{self._name}/{logical}")
        return self._flags[part]

    def pack(self, values: Sequence[Tensor], device: str) -> Tensor:
        """Returns rows made of the parts' values, padding included."""
        with v1.device(device):
            pieces = [self._pad(*pair, device) for pair in zip(self.parts, values, strict=True)]
            return tf.concat(pieces, 0)

    def to_be_saved(self, part: Part) -> Tensor:
        """Returns the handle for `DisableCopyOnRead` when a logical variable is saved."""
        return self.handle

    def _settle(self, written: Op) -> Op:
        """Returns the op that completes a write of rows.

        After a write of single rows, TensorFlow expects more of them, and would copy the variable
        at each later read and update. `DisableCopyOnRead` prevents that.
        """
        with tf.control_dependencies([written]):
            return raw.DisableCopyOnRead(resource=self.handle)

    def _read_part(self, part: Part, after: Iterable[Op]) -> Tensor:
        """Returns a logical variable's value on its device, in one dimension or in rows."""
        return self._piece(part, self.read(after), self._device)

    def _read_part_now(self, part: Part, after: Op) -> Tensor:
        """Returns the same within the current control flow; it is not shared with other reads."""
        with tf.control_dependencies([after]):
            rows = raw.ReadVariableOp(resource=self.handle, dtype=self.dtype)
        return self._unpad(part, rows[part.begin : part.end])

    @cached_property
    def _created(self) -> Op:
        """An op that fills the variable with zeros if it has no value, and else keeps it."""
        with v1.device(self._device), tf.control_dependencies(None):
            is_there = raw.VarIsInitializedOp(resource=self.handle)
            # Not `tf.cond`, which makes a function or not, depending on TensorFlow's settings.
            absent, present = raw.Switch(data=tf.constant(0), pred=is_there)
            zeros = tf.fill([self.rows, self.width], tf.cast(absent, self.dtype))
            filled = raw.AssignVariableOp(resource=self.handle, value=zeros)
            with tf.control_dependencies([filled]):
                absent = tf.identity(absent)
            return raw.Merge(inputs=[absent, present]).output.op

    def _new_handle(self, dtype: Any, shape: Any, name: str) -> Tensor:
        # Without control inputs: the handle is shared, and must not wait for those of one user.
        with v1.device(self._device), tf.control_dependencies(None):
            return raw.VarHandleOp(
                dtype=dtype, shape=shape, shared_name=name, container=self._container
            )

    def _pad(self, part: Part, value: Tensor, device: str) -> Tensor:
        shape = [part.end - part.begin, self.width]
        missing = shape[0] * shape[1] - part.size
        if missing:
            value = tf.concat([tf.reshape(value, [-1]), tf.zeros([missing], self.dtype)], 0)
        return tf.reshape(value, self._constant(shape, device))

    def _piece(self, part: Part, rows: Tensor, device: str) -> Tensor:
        """Returns the elements of a logical variable, in one dimension or in rows."""
        key = (rows.ref(), device)
        with v1.device(device):
            if key not in self._split:  # One split into all parts copies nothing.
                self._split[key] = tf.split(rows, [each.end - each.begin for each in self.parts])
            return self._unpad(part, self._split[key][self._index[part]])

    def _unpad(self, part: Part, rows: Tensor) -> Tensor:
        if part.size == (part.end - part.begin) * self.width:
            return rows
        return tf.reshape(rows, [-1])[: part.size]

    def _constant(self, value: list[int], device: str | None = None) -> Tensor:
        """Returns a constant, made once for each device."""
        device = self._device if device is None else device
        key = (tuple(value), device)
        if key not in self._constants:
            with v1.device(device), tf.control_dependencies(None):
                self._constants[key] = tf.constant(value, tf.int32)
        return self._constants[key]
