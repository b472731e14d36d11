"""Which variables are stored together, and in which order.

Everything here follows from the graph alone, so that each task that builds the same model arrives
at the same layout.
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
        updates: What is done with them, in the order in which they lie.
        name: The same for equal variables in an equal order, in every process.
    """

    updates: tuple[Update, ...]
    name: str

    @property
    def rows(self) -> int:
        """Rows of all variables together."""
        return sum(update.rows for update in self.updates)

    @property
    def dtype(self) -> Any:
        """The variables' type."""
        return self.updates[0].gradient.dtype.base_dtype

    @property
    def width(self) -> int:
        """Elements of a row."""
        return ROW_BYTES // int(self.dtype.size)

    @property
    def device(self) -> str:
        """Where the variables are."""
        return str(self.updates[0].handles[0].device)


@dataclass
class Layout:
    """Buckets, and why variables are in none.

    Attributes:
        buckets: What is stored together.
        left_alone: How many variables stay as they are, by reason.
    """

    buckets: list[Bucket] = field(default_factory=list)
    left_alone: Counter[str] = field(default_factory=Counter)


def find_layout(
    graph: tf.Graph, placed: PlacedGraph, roots: Sequence[Op], bucket_bytes: int, largest_bytes: int
) -> Layout:
    """Decides which variables are stored together.

    Args:
        graph: The graph.
        placed: What its training steps run.
        roots: The training steps.
        bucket_bytes: Bytes of a bucket, at most.
        largest_bytes: Bytes above which a variable stays by itself.
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
    """Updates that are one update on the variables side by side, and never wait for each other."""
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
