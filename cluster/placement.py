"""Which parameter server holds which variable: balanced by bytes.

TensorFlow's own `byte_size_load_fn` looks at an op's output. That of a resource variable is a
scalar handle, so it weighs nothing, and the stock greedy strategy puts everything on one server.
Here the weight comes from the attributes that say what the handle stands for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

_VARIABLE_OPS = frozenset({"VarHandleOp", "Variable", "VariableV2"})


def variable_bytes(op: tf.Operation) -> int:
    """Returns the bytes that the state behind `op` takes on its parameter server.

    Args:
        op: The op that makes a resource variable or a ref variable. Any other op counts as 0 bytes:
            how large a hash table grows cannot be seen in the graph.

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
    """A `ps_strategy`: puts each op on the parameter server that holds the fewest bytes so far.

    Among equals the lowest index wins, so that every process that builds the same graph in the same
    order finds each variable at the same place. What a server holds is counted by where each op
    really went: an optimizer slot goes where its variable is, and an op under
    `tf.device("/job:ps/task:1")` goes there.

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
        """Bytes of the variables that each parameter server holds so far, slots included."""
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
    """Returns the device function for `tf.compat.v1.device`: variables on the parameter servers.

    By itself it also sends local variables there; `on_cluster` does not.

    Args:
        num_ps: Number of parameter servers, at least 1.
        worker_device: Where everything else goes, such as "/job:worker/task:1".
        strategy: Chooses the index of the parameter server for an op; `BalancedByBytes` by default.
    """
    setter: Callable[[tf.Operation], str] = tf.compat.v1.train.replica_device_setter(
        ps_tasks=num_ps,
        ps_device="/job:ps",
        worker_device=worker_device,
        ps_strategy=strategy or BalancedByBytes(num_ps),
        merge_devices=True,
    )
    return setter


@contextlib.contextmanager
def on_cluster(num_ps: int, worker_device: str) -> Iterator[BalancedByBytes]:
    """Places what is built inside: variables on parameter servers, local ones and ops on a worker.

    Enter it inside `tf.Graph().as_default()`. The global step goes to parameter server 0, whenever
    it is made. A variable in `LOCAL_VARIABLES` (a metric's total, an epoch counter) stays on the
    worker: on a parameter server all workers would share it by its name.

    Args:
        num_ps: Number of parameter servers, at least 1.
        worker_device: The device of the task that builds the graph, such as "/job:worker/task:1".

    Yields:
        The strategy, which knows the bytes placed so far.
    """
    keys = tf.compat.v1.GraphKeys
    fixed = {keys.LOCAL_VARIABLES: worker_device, keys.GLOBAL_STEP: "/job:ps/task:0"}

    def create(next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        collections = kwargs.get("collections") or ()
        device = next((fixed[key] for key in fixed if key in collections), None)
        if device is None:
            return next_creator(**kwargs)
        with tf.compat.v1.device(device):
            return next_creator(**kwargs)

    strategy = BalancedByBytes(num_ps)
    setter = device_setter(num_ps, worker_device, strategy)
    with tf.compat.v1.device(setter), tf.compat.v1.variable_creator_scope(create):
        yield strategy


def parameter_bytes(variables: Iterable[tf.Variable]) -> dict[int, int]:
    """Returns the bytes that each parameter server holds, by its index.

    Args:
        variables: Variables with their optimizer slots, usually `tf.compat.v1.global_variables()`.
            Those that are not on a parameter server do not count.
    """
    totals: dict[int, int] = {}
    for variable in variables:
        device = tf.DeviceSpec.from_string(variable.device)
        if device.job == "ps":
            index = device.task or 0
            totals[index] = totals.get(index, 0) + variable_bytes(variable.op)
    return totals
