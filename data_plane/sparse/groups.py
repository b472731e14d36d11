"""Groups of tables with equal rows on one parameter server, deduplicated with one op each.

The ids of each table get the table's number in their high bits, so that no two tables have an id in
common. Then they are joined. `Unique` keeps the order of first occurrences. So the ids of one table
stay together, and their rows are summed in their original order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ...tf_internals import set_input
from ..placed_graph import HOME, TaskDevice, Tensor
from .lookups import Lookup, Sum, Tables, flat, origin, shaped

v1 = tf.compat.v1

# Bits for the id; no table has 2^40 rows. The bits above hold the table's number.
_TABLE_BITS = 40


@dataclass(frozen=True, eq=False)
class Group:
    """Tables that are looked up and updated once in a step, with the same ids.

    Attributes:
        task: The parameter server.
        sums: The sum of each table's gradient.
        lookups: The lookup in each table.
    """

    task: TaskDevice
    sums: tuple[Sum, ...]
    lookups: tuple[Lookup, ...]


def find_groups(tables: Tables) -> Iterator[Group]:
    """Yields groups of two or more tables whose lookups and sums do not wait for each other."""
    groups: dict[Any, list[tuple[Sum, Lookup]]] = defaultdict(list)
    for total, lookup in _pairs(tables):
        groups[_key(tables, total, lookup)].append((total, lookup))
    for (task, *_), members in groups.items():
        if len(members) > 1:
            sums, lookups = zip(*members, strict=True)
            yield Group(task, sums, lookups)


def _pairs(tables: Tables) -> Iterator[tuple[Sum, Lookup]]:
    """Yields each sum with a lookup of the same ids on the same task, if their numbers agree."""

    def key(op: Any, ids: Tensor) -> Any:
        return tables.placed.task(op), origin(ids).ref()

    sums: dict[Any, list[Sum]] = defaultdict(list)
    for total in tables.sums:
        sums[key(total.total, total.unique.inputs[0])].append(total)
    lookups: dict[Any, list[Lookup]] = defaultdict(list)
    for lookup in tables.lookups:
        lookups[key(lookup.gather, lookup.ids)].append(lookup)
    for each, found in sums.items():
        if len(found) == len(lookups[each]):
            yield from zip(found, lookups[each], strict=True)


def _key(tables: Tables, total: Sum, lookup: Lookup) -> Any:
    placed = tables.placed
    stages, roots = placed.stages, placed.roots_of
    ids = origin(lookup.ids)
    return (
        placed.task(lookup.gather),
        # Tensors of one stage do not wait for each other, so joining them adds no cycle.
        stages[ids.op],
        stages[total.values.op],
        tuple(roots[op] for op in (ids.op, lookup.gather, total.total, total.values.op)),
        ids.dtype,
        total.unique.get_attr("out_idx"),
        (lookup.rows.dtype, tuple(lookup.width.as_list())),
        (total.values.dtype, tuple(total.values.shape[1:].as_list())),
    )


def join(tables: Tables, group: Group) -> None:
    """Joins the ops of a group that find equal ids, and those that sum gradients."""
    placed, count = tables.placed, len(group.lookups)
    at_home, at_tables = placed.device(HOME), placed.device(group.task)
    with v1.device(at_home):
        pieces = [flat(origin(lookup.ids)) for lookup in group.lookups]
        sizes = _sizes(pieces)
        dtype = group.sums[0].unique.get_attr("out_idx")
        found, positions = tf.unique(_joined(pieces, sizes), dtype)
        message = _message(found, count, pieces[0].dtype)
    with v1.device(at_tables):
        counts = tf.cast(message[:count], tf.int32)
        ids = tf.split(message[count:], counts, num=count)
        rows = [lookup.gather_for(each) for lookup, each in zip(group.lookups, ids, strict=True)]
        once = tf.concat(rows, 0)
    with v1.device(at_home):
        repeated = tf.split(tf.gather(once, positions), sizes, num=count)
        values = tf.concat([total.values for total in group.sums], 0)
        summed = tf.math.unsorted_segment_sum(values, positions, tf.size(found, dtype))
        summed.set_shape([None, *values.shape[1:].as_list()])
    with v1.device(at_tables):
        gradients = tf.split(summed, counts, num=count)
    for index, (total, lookup) in enumerate(zip(group.sums, group.lookups, strict=True)):
        with v1.device(at_home):
            _use(tables, lookup.rows, shaped(repeated[index], lookup))
        _use(tables, total.unique.outputs[0], ids[index], total)
        _use(tables, total.total.outputs[0], gradients[index])


def _sizes(pieces: Sequence[Tensor]) -> Sequence[int] | Tensor:
    sizes = [piece.shape.num_elements() for piece in pieces]
    return tf.stack([tf.size(piece) for piece in pieces]) if None in sizes else sizes


def _joined(pieces: Sequence[Tensor], sizes: Sequence[int] | Tensor) -> Tensor:
    """Returns the ids of all tables, int64 [n], with the table's number in the high bits."""
    numbers = np.arange(len(pieces), dtype=np.int64) << _TABLE_BITS
    if tf.is_tensor(sizes):
        raised = [tf.cast(ids, tf.int64) + n for ids, n in zip(pieces, numbers, strict=True)]
        return tf.concat(raised, 0)
    return tf.cast(tf.concat(pieces, 0), tf.int64) + np.repeat(numbers, sizes)


def _message(found: Tensor, count: int, dtype: tf.DType) -> Tensor:
    """Returns one tensor with the number of distinct ids of each table, and then these ids.

    One tensor is one transfer, where counts and ids of each table would take several.
    """
    table_of = tf.bitwise.right_shift(found, np.int64(_TABLE_BITS))
    ends = tf.searchsorted(table_of, np.arange(count, dtype=np.int64), side="right")
    counts = ends - tf.concat([[0], ends[:-1]], 0)
    ids = tf.bitwise.bitwise_and(found, np.int64((1 << _TABLE_BITS) - 1))
    return tf.concat([tf.cast(counts, dtype), tf.cast(ids, dtype)], 0)


def _use(tables: Tables, old: Tensor, new: Tensor, inside: Sum | None = None) -> None:
    for user, index in tables.uses(old):
        if inside is None or user not in inside.ops:
            set_input(user, index, new)
