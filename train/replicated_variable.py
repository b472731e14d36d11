"""One variable of the model, copied to every parameter server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from ..tf_internals import SaveableObject, SaveSpec, set_initializer

# The base class of objects that `tf.compat.v1.train.Saver` lets restore themselves; not public.

v1 = tf.compat.v1


class ReplicatedVariable(tf.__internal__.tracking.Trackable):
    """Copies of one value, each on its task; savers and initializers see a single variable.

    It stands in `GLOBAL_VARIABLES` in place of its first copy. A checkpoint holds that copy, under
    its name; restoring, initializing and assigning fill all, and it counts as initialized only
    if all are. The first copy does everything else that a variable can do.

    It is no `tf.Variable`: a saver would then save and restore the first copy only.

    Args:
        copies: The variables by their task, as "/job:ps/task:0"; all of one shape and dtype. Of
            these only the first may be in a collection.
    """

    # With this, `init_from_checkpoint` takes it for a variable.
    _should_act_as_resource_variable = True

    def __init__(self, copies: Mapping[str, Any]) -> None:
        self.copies = dict(copies)
        self._first, *others = self.copies.values()
        # Also that of the first copy: a program may keep a reference to it, or import the exported
        # graph.
        everywhere = tf.group(*(copy.initializer for copy in (self._first, *others)))
        self._initializer_op = everywhere
        set_initializer(self._first, everywhere)
        _replace(v1.get_collection_ref(v1.GraphKeys.GLOBAL_VARIABLES), self._first, self)

    def __getattr__(self, name: str) -> Any:
        # `_first` is missing while an instance is being copied.
        if name == "_first":
            raise AttributeError(name)
        return getattr(self._first, name)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        """Returns its value, of the first copy."""
        return tf.convert_to_tensor(self._first, dtype=dtype, name=name)

    @property
    def dtype(self) -> tf.DType:
        """The type of its value, not of a reference, which would be one of the first copy."""
        return self._first.dtype.base_dtype

    @property
    def initializer(self) -> Any:
        """The op that initializes all copies."""
        return self._initializer_op

    def is_initialized(self, name: str | None = None) -> Any:
        """Returns a scalar bool tensor: whether all copies are initialized."""
        flags = [v1.is_variable_initialized(copy) for copy in self.copies.values()]
        return tf.reduce_all(tf.stack(flags), name=name)

    def assign(
        self,
        value: Any,
        use_locking: bool = False,
        name: str | None = None,
        read_value: bool = True,
    ) -> Any:
        """Gives all copies a value.

        Args:
            value: Scalar or tensor of the variable's shape.
            use_locking: Whether to lock each copy meanwhile.
            name: Name of the op.
            read_value: Whether to return the new value, and not the op.
        """
        value = tf.convert_to_tensor(value, dtype=self.dtype)
        assigned = []
        for copy in self.copies.values():
            with v1.device(copy.device):
                assigned.append(copy.assign(value, use_locking=use_locking, read_value=False))
        done = tf.group(*assigned, name=name)
        if not read_value:
            return done
        with tf.control_dependencies([done]):
            return tf.identity(value)

    def _gather_saveables_for_checkpoint(self) -> dict[str, Any]:
        def make(name: str | None = None) -> SaveableObject:
            return _Saveable(self, self._first.op.name if name is None else name)

        return {"VARIABLE_VALUE": make}  # The key of a plain variable.


class _Saveable(SaveableObject):
    """Saves the first copy, restores all."""

    def __init__(self, variable: ReplicatedVariable, name: str) -> None:
        first = next(iter(variable.copies.values()))
        spec = SaveSpec(tf.convert_to_tensor(first), "", name, variable.dtype, first.device)
        super().__init__(first.op, [spec], name)
        self._variable = variable

    def restore(self, restored_tensors: list[Any], restored_shapes: list[Any] | None) -> Any:
        [value] = restored_tensors
        shape = self._variable.shape if restored_shapes is None else restored_shapes[0]
        return self._variable.assign(tf.reshape(value, shape), read_value=False)


def _replace(items: list[Any], old: Any, new: Any) -> None:
    items[:] = [new if item is old else item for item in items]
