"""Partitioning of large variables, so that no parameter server holds or sends a whole one."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1
log = logging.getLogger(__name__)


def partitions_by_axis(shape: Sequence[int], element_bytes: int, max_shard_bytes: int) -> list[int]:
    """Returns the number of partitions of each axis that keeps every partition within a size.

    The first axis is cut, as lookups by row need it. Where one of its rows alone is too large, the
    longest axis is cut. A partition that is one element wide is not cut further, whatever its size.

    Args:
        shape: The variable's shape, at least one axis.
        element_bytes: Bytes of one element.
        max_shard_bytes: Bytes that a partition may have, at least 1.

    Returns:
        One number for each axis, as TensorFlow's partitioners give them; at most one is over 1.
    """
    total = math.prod(shape) * element_bytes
    counts = [1] * len(shape)
    if total > max_shard_bytes:
        fits = total // shape[0] <= max_shard_bytes
        axis = 0 if fits else max(range(len(shape)), key=lambda a: shape[a])
        longest_piece = max(1, max_shard_bytes // (total // shape[axis]))
        counts[axis] = math.ceil(shape[axis] / longest_piece)
    return counts


class LargeVariables:
    """Partitioner for variables of `tf.compat.v1.get_variable` above `max_shard_bytes`.

    Inside `scope`, a large variable becomes a `PartitionedVariable`. Its partitions are variables
    that are placed one by one, and checkpoints hold it under its own name and shape. A partitioner
    of the model itself takes precedence. Local variables stay whole. Slots are not cut here, since
    TensorFlow makes one for each partition.

    Args:
        max_shard_bytes: Bytes that a partition may have, at least 1.

    Raises:
        ValueError: `max_shard_bytes` is less than 1.
    """

    def __init__(self, max_shard_bytes: int) -> None:
        if max_shard_bytes < 1:
            raise ValueError(
                f"max_shard_bytes={max_shard_bytes}: expected at least 1 byte, or None to leave "
                "all variables whole"
            )
        self._max_bytes = max_shard_bytes
        self._gets = 0

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Partitions variables made inside, in the current variable scope and those within it."""
        current = v1.get_variable_scope()
        # The partitioner marks where the rule holds: TensorFlow removes it to make slots. The
        # getter selects the variables: with a partitioner alone, TensorFlow would turn each small
        # variable into a partitioned one with a single partition.
        with v1.variable_scope(
            current, partitioner=self._cut, custom_getter=self._get, auxiliary_name_scope=False
        ):
            yield

    def note_whole(self, variable: tf.Variable, collections: Sequence[str]) -> None:
        """Logs that a variable is above the limit, if `get_variable` did not make it."""
        if not self._gets and v1.get_variable_scope().partitioner == self._cut:
            self._warn(variable, collections, "only get_variable's can be cut")

    def _cut(self, shape: tf.TensorShape, dtype: tf.DType) -> list[int]:
        return partitions_by_axis(shape.as_list(), dtype.size, self._max_bytes)

    def _get(self, getter: Callable[..., Any], *args: Any, **options: Any) -> Any:
        ours = options.get("partitioner") == self._cut
        shape = _shape_of(options.get("shape"), options.get("initializer"))
        if ours:
            options["partitioner"] = None
            if self._is_to_be_cut(shape, options):
                options |= {"partitioner": self._cut, "shape": shape}
                options["initializer"] = _piecewise(options.get("initializer"))
        self._gets += 1
        try:
            variable = getter(*args, **options)
        finally:
            self._gets -= 1
        if ours and isinstance(variable, tf.Variable):
            self._warn(variable, options.get("collections") or (), "its shape was not given")
        return variable

    def _is_to_be_cut(self, shape: list[int] | None, options: dict[str, Any]) -> bool:
        if not shape or v1.GraphKeys.LOCAL_VARIABLES in (options.get("collections") or ()):
            return False
        size = tf.as_dtype(options.get("dtype") or tf.float32).size
        return max(partitions_by_axis(shape, size, self._max_bytes)) > 1

    def _warn(self, variable: tf.Variable, collections: Sequence[str], why: str) -> None:
        size = (variable.shape.num_elements() or 0) * variable.dtype.base_dtype.size
        if size > self._max_bytes and v1.GraphKeys.LOCAL_VARIABLES not in collections:
            log.warning(
                "variable %r of %d bytes is left whole, over max_shard_bytes=%d: %s",
                variable.op.name,
                size,
                self._max_bytes,
                why,
            )


def _shape_of(shape: Any, initializer: Any) -> list[int] | None:
    """Returns the shape that a variable will have; None if it is unknown before creation."""
    if shape is None and initializer is not None and not callable(initializer):
        shape = initializer.shape if tf.is_tensor(initializer) else _array_shape(initializer)
    known = tf.TensorShape(shape)
    return [int(size) for size in known] if known.is_fully_defined() else None


def _array_shape(value: Any) -> tuple[int, ...] | None:
    shape = getattr(value, "shape", None)
    return tuple(shape) if shape is not None else None


def _piecewise(initializer: Any) -> Any:
    """Returns an initializer that gives partitions the values of the whole variable.

    An initializer with a seed of its own would fill all partitions with the same values. One
    without `partition_info` (those of Keras) would scale the values to the partition's shape. For
    both, the whole value is made on the partition's parameter server, and sliced.
    """
    if inspect.isclass(initializer):
        initializer = initializer()
    if initializer is None or not callable(initializer):
        return initializer
    knows_whole = "partition_info" in inspect.signature(initializer).parameters
    if knows_whole and getattr(initializer, "seed", None) is None:
        return initializer

    def initial_piece(shape: list[int], dtype: Any = None, partition_info: Any = None) -> Any:
        whole = initializer(partition_info.full_shape, dtype=dtype)
        return tf.slice(whole, partition_info.var_offset, shape)

    return initial_piece
