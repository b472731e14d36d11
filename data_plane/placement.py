"""Placement of variables on parameter servers, balanced by bytes.

TensorFlow's own `byte_size_load_fn` looks at an op's output. The output of a resource variable is a
scalar handle, so it weighs nothing, and the stock greedy strategy puts everything on one server.
Here the weight comes from the op's attributes: the dtype and shape of the variable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

# The default of `replica_device_setter`, which has no public name.
from ..tf_internals import STANDARD_PS_OPS
from .partitioning import LargeVariables

_VARIABLE_OPS = frozenset({"VarHandleOp", "Variable", "VariableV2"})


def variable_bytes(op: tf.Operation) -> int:
    """Returns the bytes that the state of an op takes on its parameter server.

    Args:
        op: The op that makes a resource variable or a ref variable. Any other op counts as 0 bytes:
            the graph does not tell the size of a hash table.

    Raises:
        ValueError: If `op` makes a variable whose shape is not fully defined.
    """
    if op.type not in _VARIABLE_OPS:
        return 0
    count = tf.TensorShape(op.get_attr("shape")).num_elements()
    if count is None:
        raise ValueError(
            f"variable {op.name!r} has the shape {tf.TensorShape(op.get_attr('shape'))}, so its "
            "bytes are unknown: give it a fully defined shape"
        )
    return int(count) * int(op.get_attr("dtype").size)


class BalancedByBytes:
    """A `ps_strategy` that chooses the parameter server with the fewest bytes so far.

    Among equals the lowest index wins. So every process that builds the same graph in the same
    order places each variable alike. The bytes of a server are counted by the final device of each
    op: an optimizer slot follows its variable, and an explicit `tf.device("/job:ps/task:1")` holds.

    Args:
        num_ps: Number of parameter servers, at least 1.
    """

    def __init__(self, num_ps: int) -> None:
        if num_ps < 1:
            raise ValueError(f"num_ps={num_ps}: variables need at least 1 parameter server")
        self._bytes = [0] * num_ps
        self._unsettled: list[tuple[tf.Operation, int]] = []

    @property
    def bytes_per_ps(self) -> tuple[int, ...]:
        """Bytes of the variables on each parameter server so far, slots included."""
        self._settle()
        return tuple(self._bytes)

    def __call__(self, op: tf.Operation) -> int:
        """Returns the index of the parameter server for `op`.

        Raises:
            ValueError: If `op` makes a variable without a fully defined shape, or asks for a
                parameter server that does not exist.
        """
        self._settle()
        size = variable_bytes(op)
        chosen = tf.DeviceSpec.from_string(op.device).task
        if chosen is None:
            chosen = self._bytes.index(min(self._bytes))
        if chosen >= len(self._bytes):
            raise ValueError(
                f"{op.name!r} asks for {op.device}, but there are only {len(self._bytes)} "
                "parameter servers: use a smaller task index"
            )
        self._unsettled.append((op, size))
        return int(chosen)

    def leave_out(self, op: tf.Operation) -> None:
        """Removes from the count an op that only one task's graph has, so that all place alike.

        Args:
            op: The op that has just made a local variable. On a worker that is a parameter server
                as well, it looks like a parameter.
        """
        self._unsettled = [(other, size) for other, size in self._unsettled if other is not op]

    def _settle(self) -> None:
        # TensorFlow asks for a device before it applies colocation, which overrides the answer, so
        # an op's bytes are counted only when its device is final: at the next call.
        for op, size in self._unsettled:
            device = tf.DeviceSpec.from_string(op.device)
            if device.job == "ps" and device.task is not None:
                self._bytes[device.task] += size
        self._unsettled.clear()


def device_setter(
    num_ps: int, worker_device: str, strategy: Callable[[tf.Operation], int] | None = None
) -> Callable[[tf.Operation], str]:
    """Returns a device function for `tf.compat.v1.device` with variables on parameter servers.

    By itself it places local variables there as well; `on_cluster` does not.

    Args:
        num_ps: Number of parameter servers, at least 1.
        worker_device: The device of all other ops, such as "/job:worker/task:1".
        strategy: Chooses the index of the parameter server for an op; `BalancedByBytes` by default.
    """
    setter: Callable[[tf.Operation], str] = tf.compat.v1.train.replica_device_setter(
        ps_tasks=num_ps,
        ps_device="/job:ps",
        worker_device=worker_device,
        ps_strategy=strategy or BalancedByBytes(num_ps),
        merge_devices=True,
    )
    of_others: dict[str, str] = {}

    def device(op: tf.Operation) -> str:
        if not isinstance(op, tf.Operation) or op.type in STANDARD_PS_OPS:
            return setter(op)
        # The device of any other op follows from its explicit device. The setter takes long, so its
        # answers are kept.
        if op.device not in of_others:
            of_others[op.device] = setter(op)
        return of_others[op.device]

    return device


@contextlib.contextmanager
def on_cluster(
    num_ps: int, worker_device: str, *, max_shard_bytes: int | None = None
) -> Iterator[BalancedByBytes]:
    """Places variables built inside on parameter servers; local variables and ops on a worker.

    Enter it inside `tf.Graph().as_default()`. The global step goes to parameter server 0, whenever
    it is made. A variable in `LOCAL_VARIABLES` (a metric's total, an epoch counter) stays on the
    worker: on a parameter server all workers would share it by its name.

    With `max_shard_bytes`, a larger variable of `tf.compat.v1.get_variable` is partitioned, along
    its first axis where possible. The partitions are balanced by bytes, with their slots.
    Checkpoints keep the variable's name and shape, so a graph with other partitions, or none,
    restores it. Look up rows with `tf.nn.embedding_lookup`, or with `partition_strategy="div"`: the
    "mod" of `tf.compat.v1.nn.embedding_lookup` returns the wrong rows. Variables of `tf.Variable`
    and Keras layers are left whole, which is logged.

    Args:
        num_ps: Number of parameter servers, at least 1.
        worker_device: The device of the task that builds the graph, such as "/job:worker/task:1".
        max_shard_bytes: Bytes that a variable, or a partition of one, may have; None: any.

    Yields:
        The strategy, which counts the bytes placed so far.

    Raises:
        ValueError: There is no parameter server, or `max_shard_bytes` is less than 1.
    """
    keys = tf.compat.v1.GraphKeys
    fixed = {keys.LOCAL_VARIABLES: worker_device, keys.GLOBAL_STEP: "/job:ps/task:0"}
    large = None if max_shard_bytes is None else LargeVariables(max_shard_bytes)

    def create(next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        collections = kwargs.get("collections") or ()
        device = next((fixed[key] for key in fixed if key in collections), None)
        with contextlib.nullcontext() if device is None else tf.compat.v1.device(device):
            variable = next_creator(**kwargs)
        if keys.LOCAL_VARIABLES in collections:
            strategy.leave_out(variable.op)
        if large is not None:
            large.note_whole(variable, collections)
        return variable

    strategy = BalancedByBytes(num_ps)
    setter = device_setter(num_ps, worker_device, strategy)
    cutting = contextlib.nullcontext() if large is None else large.scope()
    with tf.compat.v1.device(setter), tf.compat.v1.variable_creator_scope(create), cutting:
        yield strategy


@dataclass(frozen=True)
class ServerLoad:
    """The load of one parameter server in variables and bytes.

    Attributes:
        bytes: Bytes of all its variables, optimizer slots included.
        variables: Number of variables; a partition of a large variable counts as one.
        largest: Name of the largest variable; among equals the first in the alphabet.
        largest_bytes: Bytes of the largest variable.
    """

    bytes: int
    variables: int
    largest: str
    largest_bytes: int


def server_loads(variables: Iterable[tf.Variable]) -> dict[int, ServerLoad]:
    """Returns the load of each parameter server by its index, lowest first.

    Args:
        variables: Variables with their optimizer slots, usually `tf.compat.v1.global_variables()`.
            Variables elsewhere do not count, and servers without variables are left out.
    """
    held: dict[int, list[tuple[int, str]]] = {}
    for variable in variables:
        device = tf.DeviceSpec.from_string(variable.device)
        if device.job == "ps":
            size = variable_bytes(variable.op)
            held.setdefault(device.task or 0, []).append((size, variable.op.name))
    loads = {}
    for index, sizes in sorted(held.items()):
        largest_bytes, largest = min(sizes, key=lambda item: (-item[0], item[1]))
        loads[index] = ServerLoad(sum(s for s, _ in sizes), len(sizes), largest, largest_bytes)
    return loads


def parameter_bytes(variables: Iterable[tf.Variable]) -> dict[int, int]:
    """Returns the bytes of each parameter server by its index; see `server_loads`."""
    return {index: load.bytes for index, load in server_loads(variables).items()}
