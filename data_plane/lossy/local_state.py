"""State of the task that runs a graph: in no collection, and so in no checkpoint.

The operations are TensorFlow's raw ones: a variable made here should not depend on who else watches
variables being made in the graph, nor on the kind of variables that the user has chosen.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

# What has to run at the beginning of each session: all of this state is filled then.
START = "paramserve/transfer/start"


class LocalState:
    """A tensor that stays on its task from step to step.

    It lives on the device under which it is made.

    Args:
        name: What its operations are called.
        dtype: Its type.
        shape: Its shape, fully known.
        is_ref: Whether it is a variable of the old kind, whose handle is a reference.
    """

    def __init__(
        self, name: str, dtype: Any, shape: Sequence[int], *, is_ref: bool = False
    ) -> None:
        self.dtype = dtype
        self.is_ref = is_ref
        make = tf.raw_ops.VariableV2 if is_ref else tf.raw_ops.VarHandleOp
        # Shared with nobody, not even with another graph that this task runs.
        self.handle = make(dtype=dtype, shape=shape, shared_name=uuid.uuid4().hex, name=name)

    def read(self) -> Any:
        """Returns the value as of the time when this is run."""
        if self.is_ref:
            return tf.identity(self.handle)
        return tf.raw_ops.ReadVariableOp(resource=self.handle, dtype=self.dtype)

    def assign(self, value: Any) -> Any:
        """Returns the operation that sets the value."""
        if self.is_ref:
            return tf.raw_ops.Assign(ref=self.handle, value=value).op
        return tf.raw_ops.AssignVariableOp(resource=self.handle, value=value)


def add_start(graph: tf.Graph, operation: Any) -> None:
    """Has an operation run at the beginning of each session."""
    graph.add_to_collection(START, operation)


def start(session: tf.compat.v1.Session) -> None:
    """Fills the local state of a session's graph, once the model is ready; nothing if it has none.

    It has to be run in each new session: after the loss of a parameter server, what was kept
    locally belongs to parameters that are gone.
    """
    operations = session.graph.get_collection(START)
    if operations:
        session.run(operations)
