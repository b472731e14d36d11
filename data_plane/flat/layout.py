"""Layout of flat storage: groups of variables that are stored together, and their order.

The layout follows from the graph alone. So each task that builds the same model computes the same
layout.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from ..placed_graph import Op, PlacedGraph
from .likeness import Structure, attributes, levels, stored_name
from .updates import ROW_BYTES, Update, find_updates


@dataclass(frozen=True, eq=False)
class Bucket:
    """Variables that are stored together.

    Attributes:
        updates: The variables' updates, in the order of storage.
        name: A name that is the same for equal variables in an equal order, in every process.
    """

    updates: tuple[Update, ...]
    name: str

    @property
    def rows(self) -> int:
        """Rows of all variables together."""
        return sum(update.rows for update in self.updates)

    @property
    def dtype(self) -> Any:
        """The variables' dtype."""
        return self.updates[0].gradient.dtype.base_dtype

    @property
    def width(self) -> int:
        """Elements of a row."""
        return ROW_BYTES // int(self.dtype.size)

    @property
    def device(self) -> str:
        """The variables' device."""
        return str(self.updates[0].handles[0].device)


@dataclass
class Layout:
    """Buckets, and the reasons why other variables are in none.

    Attributes:
        buckets: Variables that are stored together.
        left_alone: Number of variables that stay as they are, by reason.
    """

    buckets: list[Bucket] = field(default_factory=list)
    left_alone: Counter[str] = field(default_factory=Counter)


def find_layout(
    graph: tf.Graph, placed: PlacedGraph, roots: Sequence[Op], bucket_bytes: int, largest_bytes: int
) -> Layout:
    """Finds the variables that are stored together.

    Args:
        graph: The graph.
        placed: The ops of its training steps.
        roots: The training steps.
        bucket_bytes: Bytes of a bucket, at most.
        largest_bytes: Bytes above which a variable stays by itself.

    Returns:
        The buckets, and counts of the variables in none.
    """
    found, left_alone = find_updates(graph, placed, roots, largest_bytes)
    layout = Layout(left_alone=left_alone)
    for group in _groups(placed, found).values():
        for updates in _cut(group, bucket_bytes):
            if len(updates) > 1:
                layout.buckets.append(_bucket(updates))
            else:
                layout.left_alone["no other one is updated like it"] += 1
    return layout


def _groups(placed: PlacedGraph, updates: Sequence[Update]) -> dict[Any, list[Update]]:
    """Groups updates that can be one update of the variables side by side.

    One op runs in place of several, so these must agree in everything but gradient and variable:
    device, op, attributes, dtype and hyperparameters. At one level no update waits for another, so
    the joint one adds no cycle. With the same roots a run that needs one update needs all of them,
    and a run that reads one variable reads all.
    """
    found = levels(placed, {update.apply for update in updates})
    structure = Structure()
    groups: dict[Any, list[Update]] = defaultdict(list)
    for update in updates:
        apply, handle = update.apply, update.handles[0]
        taken = {*update.places, _gradient_place(update)}
        key = (
            handle.device,
            handle.get_attr("container"),
            apply.type,
            attributes(apply),
            update.gradient.dtype.base_dtype,
            tuple(structure.key(t) for place, t in enumerate(apply.inputs) if place not in taken),
            found[apply],
            placed.roots_of[apply],
            _roots_of_reads(placed, handle),
        )
        groups[key].append(update)
    return groups


def _gradient_place(update: Update) -> int:
    return next(
        place for place, tensor in enumerate(update.apply.inputs) if tensor is update.gradient
    )


def _roots_of_reads(placed: PlacedGraph, handle: Op) -> int:
    roots = 0
    for op in handle.outputs[0].consumers():
        roots |= placed.roots_of.get(op, 0)
    return roots


def _cut(group: Iterable[Update], bucket_bytes: int) -> Iterator[list[Update]]:
    bucket: list[Update] = []
    rows = 0
    for update in group:
        if bucket and (rows + update.rows) * ROW_BYTES > bucket_bytes:
            yield bucket
            bucket, rows = [], 0
        bucket.append(update)
        rows += update.rows
    yield bucket


def _bucket(updates: Sequence[Update]) -> Bucket:
    return Bucket(tuple(updates), stored_name([update.handles for update in updates]))
