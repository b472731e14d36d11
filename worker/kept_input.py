"""Input that goes on where it was when a worker's session is replaced by another one."""

from __future__ import annotations

import uuid
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1
raw = tf.raw_ops

_ONE_SHOT = "OneShotIterator"


def keep_input(graph: tf.Graph) -> Any:
    """Has the sessions of a graph share its one-shot iterators.

    TensorFlow gives each session its own, which begins with the first element: after the loss of a
    parameter server a worker would read its files anew, and train twice on what comes first. The
    process's own server keeps an iterator that has a name, for all sessions.

    Args:
        graph: The graph, changed in place.

    Returns:
        The op that opens the input, for the first session; None if there is no such iterator.
    """
    opened = [
        _keep(graph, op) for op in graph.get_operations() if op.type == _ONE_SHOT and op.outputs
    ]
    if not opened:
        return None
    with graph.as_default(), v1.device(None):
        return tf.group(*opened, name="open_input")


def _keep(graph: tf.Graph, one_shot: Any) -> Any:
    """Puts an iterator with a name in the place of one without; returns what opens it."""
    types, shapes = one_shot.get_attr("output_types"), one_shot.get_attr("output_shapes")
    users = list(one_shot.outputs[0].consumers())
    with graph.as_default(), v1.device(one_shot.device), tf.control_dependencies(None):
        # The name is new, so that a graph that is built later does not go on with this one's.
        name = f"{one_shot.name}-{uuid.uuid4().hex}"
        iterator = raw.IteratorV2(
            shared_name=name, container="", output_types=types, output_shapes=shapes
        )
        factory = one_shot.get_attr("dataset_factory")
        (dataset,) = raw.StatefulPartitionedCall(args=[], Tout=[tf.variant], f=factory)
        opened = raw.MakeIterator(dataset=dataset, iterator=iterator)
    for user in users:
        for index, tensor in enumerate(user.inputs):
            if tensor is one_shot.outputs[0]:
                user._update_input(index, iterator)
    return opened
