"""State of the task that runs a graph: in no collection, and so in no checkpoint.

The operations are TensorFlow's raw ones. So a variable made here is independent of variable creator
scopes in the graph, and of the kind of variables that the user has chosen.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

# Collection of the operations that fill this state; they have to run when a session begins.
START = "paramserve/transfer/start"


class LocalState:
    """A tensor that stays on its task from step to step.

    It lives on the device under which it is made.

    Args:
        name: Name of its operations.
        dtype: Dtype of the tensor.
        shape: Shape of the tensor, fully defined.
        is_ref: Whether it is a ref variable, whose handle is a reference.
    """

    def __init__(
        self, name: str, dtype: Any, shape: Sequence[int], *, is_ref: bool = False
    ) -> None:
        self.dtype = dtype
        self.is_ref = is_ref
        make = tf.raw_ops.VariableV2 if is_ref else tf.raw_ops.VarHandleOp
        # A unique name: shared with no other task, nor with another graph that this task runs.
        self.handle = make(dtype=dtype, shape=shape, shared_name=uuid.uuid4().hex, name=name)

    def read(self) -> Any:
        """Returns the value at the time when the read runs."""
        if self.is_ref:
            return tf.identity(self.handle)
        return tf.raw_ops.ReadVariableOp(resource=self.handle, dtype=self.dtype)

    def assign(self, value: Any) -> Any:
        """Returns the operation that sets the value."""
        if self.is_ref:
            return tf.raw_ops.Assign(ref=self.handle, value=value).op
        return tf.raw_ops.AssignVariableOp(resource=self.handle, value=value)


def add_start(graph: tf.Graph, operation: Any) -> None:
    """Adds an operation that `start` runs at the beginning of each session."""
    graph.add_to_collection(START, operation)


def start(session: tf.compat.v1.Session) -> None:
    """Fills the local state of a session's graph, once the model is ready; nothing if it has none.

    It has to be run in each new session. After the loss of a parameter server, the local state
    belongs to parameters that are gone.
    """
    operations = session.graph.get_collection(START)
    if operations:
        session.run(operations)
