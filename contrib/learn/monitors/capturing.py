"""Monitors that keep values in memory, to look at them when training is over."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from .base import BaseMonitor, EveryN

# Ops whose values mean nothing, which need a feed, or which belong to saving and restoring.
_IGNORED_OPS = (
    "Const",
    "Assign",
    "Identity",
    "Placeholder",
    "RandomUniform",
    "Cast",
    "RestoreSlice",
    "RestoreV2",
)
_OPAQUE = (tf.resource, tf.variant)


class CaptureVariable(EveryN):
    """Keeps the values that a variable or tensor has over time.

    Args:
        var_name: Its name, such as "weights:0".
        every_n: Steps from one value to the next.
        first_n: Number of the last of the first steps, whose values are all kept.

    Attributes:
        values: The values, by step.
    """

    def __init__(self, var_name: str, every_n: int = 100, first_n: int = 1) -> None:
        super().__init__(every_n_steps=every_n, first_n_steps=first_n)
        self._var_name = var_name
        self.values: dict[int, Any] = {}

    def every_n_step_begin(self, step: int) -> list[Any]:
        """Asks for the value."""
        return [self._var_name]

    def every_n_step_end(self, step: int, outputs: Mapping[Any, Any]) -> bool:
        """Keeps the value."""
        self.values[step] = outputs[self._var_name]
        return False


class GraphDump(BaseMonitor):
    """Keeps the first output of nearly every op in each step, to compare two runs.

    Ops that write to a variable are left out, so that a dump changes nothing. Ops inside loops, and
    ops whose output is a handle, are left out as well. All others are run in each step: ops that
    take from a queue do so, and ops that need a feed fail without it. A read of a variable that is
    not part of the model may come before the step's update or after it.

    Args:
        ignore_ops: Types of ops to leave out; by default those of constants, casts, identities,
            placeholders, uniform random numbers, assignments and restores.

    Attributes:
        data: The values by step, and by the tensors' names.
    """

    def __init__(self, ignore_ops: Collection[str] | None = None) -> None:
        super().__init__()
        self._ignore_ops = frozenset(_IGNORED_OPS if ignore_ops is None else ignore_ops)
        self._tensors: list[Any] = []
        self.data: dict[int, dict[str, Any]] = {}

    def begin(self, max_steps: int | None = None) -> None:
        """Chooses the ops of the default graph."""
        super().begin(max_steps=max_steps)
        graph = tf.compat.v1.get_default_graph()
        ops = [op for op in graph.get_operations() if graph.is_fetchable(op)]
        self._tensors = [op.outputs[0] for op in ops if self._is_dumped(op)]

    def step_begin(self, step: int) -> list[Any]:
        """Asks for everything."""
        super().step_begin(step)
        return list(self._tensors)

    def step_end(self, step: int, output: Mapping[Any, Any]) -> bool:
        """Keeps everything."""
        super().step_end(step, output)
        names = [tensor.name for tensor in self._tensors]
        self.data[step] = {name: output[name] for name in names if name in output}
        return False

    def compare(
        self, other_dump: GraphDump, step: int, atol: float = 1e-06
    ) -> tuple[list[str], dict[str, tuple[Any, Any]]]:
        """Compares this dump of a step with another run's.

        Args:
            other_dump: The other dump.
            step: Number of the step.
            atol: The absolute difference up to which values count as equal.

        Returns:
            The names of the tensors that are the same, and a dict from the names of those that
            differ to both values.

        Raises:
            ValueError: The other dump lacks a tensor, or one of them lacks the step.
        """
        dumps = self.data, other_dump.data
        for dump in dumps:
            if step not in dump:
                raise ValueError(f"step {step} was not dumped, only {sorted(dump)}")
        mine, other = (dump[step] for dump in dumps)
        matched, not_matched = [], {}
        for name, value in mine.items():
            if name not in other:
                raise ValueError(f"the other dump of step {step} has no {name!r}")
            if _is_close(value, other[name], atol):
                matched.append(name)
            else:
                not_matched[name] = (value, other[name])
        return matched, not_matched

    def _is_dumped(self, op: tf.Operation) -> bool:
        if op.type in self._ignore_ops or not op.outputs or op.outputs[0].dtype in _OPAQUE:
            return False
        return not any(argument.is_ref for argument in op.op_def.input_arg)


def _is_close(left: Any, right: Any, atol: float) -> bool:
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape:
        return False
    if np.issubdtype(left.dtype, np.number) and np.issubdtype(right.dtype, np.number):
        return bool(np.allclose(left, right, atol=atol, equal_nan=True))
    return bool(np.array_equal(left, right))
