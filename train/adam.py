"""`AdamOptimizer`: no parameter server waits for another."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from .replicated_variable import ReplicatedVariable

v1 = tf.compat.v1

_SETTINGS = ("_lr_t", "_beta1_t", "_beta2_t", "_epsilon_t")


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
