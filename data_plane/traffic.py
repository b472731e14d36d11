"""Traffic between a worker's step and each parameter server, computed from its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from .placed_graph import HOME, PlacedGraph


@dataclass(frozen=True)
class Traffic:
    """The traffic between a worker and one parameter server in one step of the worker.

    Attributes:
        pulled_bytes: Bytes from the parameter server to the worker.
        pushed_bytes: Bytes from the worker to the parameter server.
        transfers: Tensors in both directions; control edges are not counted.
        unsized: Transfers that the bytes leave out, since their size is known in the step only:
            rows looked up for a batch of any size, for example.
    """

    pulled_bytes: int = 0
    pushed_bytes: int = 0
    transfers: int = 0
    unsized: int = 0


def find_traffic(graph: tf.Graph, train_ops: Sequence[Any]) -> dict[int, Traffic]:
    """Returns the traffic of a step by index of the parameter server, lowest first.

    Args:
        graph: A graph, before or after it was prepared; the task whose session runs it is the
            worker.
        train_ops: Operations or tensors of a worker's step.
    """
    found: dict[int, Traffic] = {}
    seen = set()
    placed = PlacedGraph(graph, [getattr(op, "op", op) for op in train_ops])
    for crossing in placed.crossings():
        place = (crossing.tensor.ref(), crossing.target)
        if HOME not in (crossing.source, crossing.target) or place in seen:
            continue
        if crossing.tensor.dtype == tf.resource:
            continue  # A handle given to a function stays where it is.
        seen.add(place)  # A tensor crosses once, however many ops of the task take it.
        is_pull = crossing.target == HOME
        server = tf.DeviceSpec.from_string(crossing.source if is_pull else crossing.target)
        if server.job == "ps":
            index = server.task or 0
            found[index] = _with(found.get(index, Traffic()), crossing.tensor, is_pull)
    return dict(sorted(found.items()))


def _with(traffic: Traffic, tensor: Any, is_pull: bool) -> Traffic:
    count, size = tensor.shape.num_elements(), tensor.dtype.base_dtype.size
    crossing_bytes = (count or 0) * (size or 0)
    return Traffic(
        pulled_bytes=traffic.pulled_bytes + (crossing_bytes if is_pull else 0),
        pushed_bytes=traffic.pushed_bytes + (0 if is_pull else crossing_bytes),
        transfers=traffic.transfers + 1,
        unsized=traffic.unsized + (count is None or not size),
    )
