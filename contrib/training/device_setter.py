"""Strategies for `tf.compat.v1.train.replica_device_setter`, which place variables by load."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import tensorflow as tf

from ...data_plane.placement import variable_bytes


class RandomStrategy:
    """Spreads ops by a hash of their names, the same in every process that builds the graph.

    The index is the MD5 of "<op name>_<seed>", read as a number, modulo the number of servers.

    Args:
        num_ps: Number of parameter servers, at least 1.
        seed: Another seed is another distribution.

    Raises:
        ValueError: If `num_ps` is not at least 1.
    """

    def __init__(self, num_ps: int, seed: int = 0) -> None:
        self._num_ps = _at_least_one("num_ps", num_ps)
        self._seed = seed

    def __call__(self, op: tf.Operation) -> int:
        """Returns the index of the parameter server for `op`."""
        digest = hashlib.md5(f"{op.name}_{self._seed}".encode(), usedforsecurity=False)
        return int(digest.hexdigest(), 16) % self._num_ps


class GreedyLoadBalancingStrategy:
    """Strategy that chooses the parameter server with the smallest load so far.

    Among equals the lowest index wins. So all processes that build the same graph in the same order
    place each variable alike.

    Example::

        strategy = GreedyLoadBalancingStrategy(2, byte_size_load_fn)
        setter = tf.compat.v1.train.replica_device_setter(ps_tasks=2, ps_strategy=strategy)
        with tf.compat.v1.device(setter):
            build_model()

    Args:
        num_tasks: Number of parameter servers, at least 1.
        load_fn: Returns the load of an op, such as `byte_size_load_fn`.

    Raises:
        ValueError: If `num_tasks` is not at least 1.
    """

    def __init__(self, num_tasks: int, load_fn: Callable[[tf.Operation], float]) -> None:
        self._loads = [0.0] * _at_least_one("num_tasks", num_tasks)
        self._load_fn = load_fn

    def __call__(self, op: tf.Operation) -> int:
        """Returns the index of the parameter server for `op`, and counts its load there."""
        index = self._loads.index(min(self._loads))
        self._loads[index] += self._load_fn(op)
        return index


def byte_size_load_fn(op: tf.Operation) -> int:
    """Returns the bytes that `op` takes, as the load for a `GreedyLoadBalancingStrategy`.

    A variable counts with the bytes of its elements, whether it is a resource variable, whose op
    only outputs a handle, or a ref variable. Any other op counts with its output.

    Args:
        op: An op with one output.

    Raises:
        ValueError: If `op` has not exactly one output, or the shape is not fully defined.
    """
    if len(op.outputs) != 1:
        raise ValueError(
            f"{op.name!r} has {len(op.outputs)} outputs, but its bytes are known only if it has "
            "a single output: place it with tf.device"
        )
    # The output of a resource variable is a handle without a size, and that of a legacy scalar
    # variable has no shape yet when its op is placed. A variable's attributes have the shape in
    # both cases.
    return variable_bytes(op) or _output_bytes(op)


def _output_bytes(op: tf.Operation) -> int:
    [output] = op.outputs
    count = output.shape.num_elements()
    if count is None:
        raise ValueError(
            f"{op.name!r} has the shape {output.shape}, so its bytes are unknown: give it a fully "
            "defined shape"
        )
    return int(count) * int(output.dtype.size)


def _at_least_one(name: str, count: int) -> int:
    if count < 1:
        raise ValueError(f"{name}={count}: variables need at least 1 parameter server")
    return count
