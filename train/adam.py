"""`AdamOptimizer`: no parameter server waits for another; and one whose work is by row."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from ..tf_internals import SaveableObject, SaveSpec, set_initializer

# The base class of objects that `tf.compat.v1.train.Saver` lets restore themselves; not public.

v1 = tf.compat.v1
_SETTINGS = ("_lr_t", "_beta1_t", "_beta2_t", "_epsilon_t")


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


class AdamOptimizer(tf.compat.v1.train.AdamOptimizer):
    """Adam (Kingma and Ba, https://arxiv.org/abs/1412.6980), each parameter server on its own.

    Takes the arguments of `tf.compat.v1.train.AdamOptimizer` and gives the same weights. There,
    the powers of `beta1` and `beta2` lie on one parameter server: the others read them for each
    variable, and it waits for all updates before it advances them. Here each parameter server has
    the powers for itself. Checkpoints hold them once, as `beta1_power` and `beta2_power`, and are
    read by that optimizer, as its own are by this one.

    The tasks that get powers of their own are those of the variables of the first
    `apply_gradients` in a graph; a later one's variables elsewhere use the powers of the first
    variable's task, as all do in TensorFlow.

    Args:
        learning_rate: A number, a scalar tensor, or a callable that gives one.
        beta1: Decay of the mean of the gradients, in [0, 1).
        beta2: Decay of the mean of their squares, in [0, 1).
        epsilon: Added to the root of that mean ("epsilon hat" in the paper).
        use_locking: Whether to lock a variable while it is updated.
        name: Prefix of the names of ops, and the slots' name: "Adam" and "Adam_1".
        use_own_namescope_for_non_slot_vars: Whether the powers are named in the root scope.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta1: Any = 0.9,
        beta2: Any = 0.999,
        epsilon: Any = 1e-8,
        use_locking: bool = False,
        name: str = "Adam",
        use_own_namescope_for_non_slot_vars: bool = False,
    ) -> None:
        super().__init__(
            learning_rate,
            beta1,
            beta2,
            epsilon,
            use_locking,
            name,
            use_own_namescope_for_non_slot_vars,
        )
        # Of the `apply_gradients` under way: the task of each update's powers, in order; the values
        # read there; and their use in an update being built.
        self._homes: list[str] = []
        self._at_task: dict[str, dict[str, Any]] = {}
        self._powers_here: tuple[Any, Any] | None = None

    def _create_slots(self, var_list: list[Any]) -> None:
        self._homes, self._at_task = [], {}
        if v1.executing_eagerly_outside_functions() or tf.distribute.has_strategy():
            super()._create_slots(var_list)  # It places everything itself.
            return
        graph = var_list[0].graph
        is_first = self._get_non_slot_variable("beta1_power", graph=graph) is None
        super()._create_slots(var_list)
        if is_first:
            for name, beta in (("beta1_power", self._beta1), ("beta2_power", self._beta2)):
                power = self._get_non_slot_variable(name, graph=graph)
                self._non_slot_dict[name, graph] = _replicate(power, beta, var_list)
        copies = _copies(self._get_non_slot_variable("beta1_power", graph=graph))
        self._homes = [_home(_task(variable), copies) for variable in var_list]

    def _get_beta_accumulators(self) -> tuple[Any, Any]:
        if self._powers_here is not None:
            return self._powers_here
        powers: tuple[Any, Any] = super()._get_beta_accumulators()
        return powers

    # TensorFlow's own updates, which use the variables on their task.

    def _apply_dense(self, grad: Any, var: Any) -> Any:
        with self._at(var):
            return super()._apply_dense(grad, var)

    def _resource_apply_dense(self, grad: Any, var: Any) -> Any:
        with self._at(var):
            return super()._resource_apply_dense(grad, var)

    def _apply_sparse(self, grad: Any, var: Any) -> Any:
        with self._at(var):
            return super()._apply_sparse(grad, var)

    def _resource_apply_sparse(self, grad: Any, var: Any, indices: Any) -> Any:
        with self._at(var):
            return super()._resource_apply_sparse(grad, var, indices)

    @contextlib.contextmanager
    def _at(self, var: Any) -> Iterator[None]:
        """Puts the powers and settings of the variable's task in place of those for all."""
        if not self._homes:
            yield
            return
        task = _task(var)
        if task not in self._at_task:  # The current device is the variable's.
            powers = [_copies(power) for power in super()._get_beta_accumulators()]
            self._at_task[task] = {name: _local(getattr(self, name)) for name in _SETTINGS} | {
                "_powers_here": tuple(tf.convert_to_tensor(c[_home(task, c)]) for c in powers)
            }
        here = self._at_task[task]
        before = {name: getattr(self, name) for name in here}
        self._use(here)
        try:
            yield
        finally:
            self._use(before)

    def _use(self, scalars: dict[str, Any]) -> None:
        for name, value in scalars.items():
            setattr(self, name, value)

    def _finish(self, update_ops: list[Any], name_scope: str) -> Any:
        if not self._homes:
            return super()._finish(update_ops, name_scope)
        beta1, beta2 = (_copies(power) for power in super()._get_beta_accumulators())
        advances = []
        for task in beta1:
            mine = [op for op, home in zip(update_ops, self._homes, strict=True) if home == task]
            with tf.control_dependencies(mine), _colocate_with(beta1[task]):
                for power, decay in ((beta1[task], self._beta1_t), (beta2[task], self._beta2_t)):
                    advanced = power * _local(decay)
                    advances.append(
                        power.assign(advanced, use_locking=self._use_locking, read_value=False)
                    )
        return tf.group(*update_ops, *advances, name=name_scope)


def _task(variable: Any) -> str:
    """Returns the task that holds a variable, as "/job:ps/task:0"; "" if that is left open."""
    device = tf.DeviceSpec.from_string(variable.device)
    return tf.DeviceSpec(job=device.job, replica=device.replica, task=device.task).to_string()


def _copies(power: Any) -> dict[str, Any]:
    """Returns the variables behind a power, by their task."""
    return power.copies if isinstance(power, ReplicatedVariable) else {_task(power): power}


def _home(task: str, copies: dict[str, Any]) -> str:
    """Returns the task whose powers are used on a task: itself, or the first if it has none."""
    return task if task in copies else next(iter(copies))


def _colocate_with(variable: Any) -> Any:
    return v1.get_default_graph().colocate_with(variable)


def _replicate(power: Any, beta: Any, var_list: list[Any]) -> Any:
    """Makes a copy on each task with variables; returns the power itself if there is only one."""
    copies = {_task(power): power}
    for variable in sorted(var_list, key=lambda v: str(v.name)):
        task = _task(variable)
        if task not in copies:
            with _colocate_with(variable):
                copies[task] = v1.Variable(
                    beta,
                    name=power.op.name.rsplit("/", 1)[-1] + re.sub(r"\W+", "_", task),
                    trainable=False,
                    collections=[],
                    use_resource=power.op.type == "VarHandleOp",
                )
    return ReplicatedVariable(copies) if len(copies) > 1 else power


def _local(setting: Any) -> Any:
    """Returns a copy of a constant on the current device, so that it crosses in no step."""
    value = tf.get_static_value(setting)
    return setting if value is None else tf.constant(value, setting.dtype)


class RowSparseAdamOptimizer(AdamOptimizer):
    """Adam that leaves rows without a gradient unchanged.

    A sparse gradient (`tf.IndexedSlices`) comes from an embedding lookup, for example. With one, a
    step reads and writes only the gradient's rows, of the variable and of both averages. Gradients
    of one row are summed first. With t the number of all steps so far, a row becomes::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        row -= learning_rate * sqrt(1 - beta2**t) / (1 - beta1**t) * m / (sqrt(v) + epsilon)

    This is Adam's formula. The difference is in the rows that a step does not touch. Adam takes
    their gradient as zero: it decays their m and v in each step, and moves them along m. Here their
    m, v and weights stay unchanged until they are touched again. So a row's averages are over the
    steps that touched it, and momentum does not move it in between. A row that is touched rarely
    makes other steps than with Adam. Bias correction uses t. So the first steps of a row that is
    touched late may be large. They reach `(1 - beta1) / sqrt(1 - beta2)` times the learning rate:
    3.2 with the defaults.

    When every step touches all rows, and for dense gradients, it is Adam. Slots and checkpoints
    have Adam's names: each of the two continues from the other's checkpoint. Arguments are those of
    `AdamOptimizer`.
    """

    def _apply_sparse(self, grad: Any, var: Any) -> Any:
        def replace(table: Any, rows: Any) -> Any:
            return tf.compat.v1.scatter_update(table, grad.indices, rows, self._use_locking)

        def subtract(table: Any, rows: Any) -> Any:
            return tf.compat.v1.scatter_sub(table, grad.indices, rows, self._use_locking)

        return self._update_rows(grad.values, var, grad.indices, replace, subtract)

    def _resource_apply_sparse(self, grad: Any, var: Any, indices: Any) -> Any:
        def replace(table: Any, rows: Any) -> Any:
            return tf.raw_ops.ResourceScatterUpdate(
                resource=table.handle, indices=indices, updates=rows
            )

        def subtract(table: Any, rows: Any) -> Any:
            return tf.raw_ops.ResourceScatterSub(
                resource=table.handle, indices=indices, updates=rows
            )

        return self._update_rows(grad, var, indices, replace, subtract)

    def _update_rows(
        self,
        grad: Any,
        var: Any,
        indices: Any,
        replace: Callable[[Any, Any], Any],
        subtract: Callable[[Any, Any], Any],
    ) -> Any:
        """Updates the rows `indices`, each named once, with gradients of shape [rows, ...]."""
        with self._at(var):
            powers = self._get_beta_accumulators()
            settings = (self._lr_t, self._beta1_t, self._beta2_t, self._epsilon_t)
            beta1_power, beta2_power, rate, beta1, beta2, epsilon = (
                tf.cast(value, var.dtype.base_dtype) for value in (*powers, *settings)
            )
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        new_m = tf.gather(m, indices) * beta1 + grad * (1 - beta1)
        new_v = tf.gather(v, indices) * beta2 + grad * grad * (1 - beta2)
        rate *= tf.sqrt(1 - beta2_power) / (1 - beta1_power)
        return tf.group(
            replace(m, new_m),
            replace(v, new_v),
            subtract(var, rate * new_m / (tf.sqrt(new_v) + epsilon)),
        )
