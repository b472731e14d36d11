"""Deduplication of ids: each row of a table, and its summed gradient, crosses once in a step.

Most optimizers sum a gradient's rows for equal ids next to the table: all rows cross and are summed
there. This pass runs the same ops, on the same values, on the worker. The distinct ids serve the
lookup as well: the parameter server gathers each row once, and the worker repeats it where needed.
Nothing is rounded differently, so weights are the same to the last bit. Tables on one parameter
server with equal rows share these ops.

Gradient descent adds each row of its gradient to the table one by one. A sum on the worker would
round differently, so all of them cross. Its lookups are deduplicated if rows are wide.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ...tf_internals import move_op, set_input
from ..placed_graph import HOME, Op, PlacedGraph, TaskDevice, Tensor
from ..rewiring import adding_to
from .lookups import Lookup, Report, Sum, Tables, flat, origin, shaped

v1 = tf.compat.v1
log = logging.getLogger(__name__)

# With Zipf ids (exponent 1.1, batch 256) over loopback, finding equal ids takes as much time as
# it saves at 256 to 512 bytes; a slower link gains from fewer.
WIDE_ROW_BYTES = 512
# A deduplicated gradient crosses in three transfers of its own, because its size is unknown.
# Gradients of fewer bytes are faster in a bucket with others.
FEWEST_BYTES = 64 << 10
_SCOPE = "sparse"
# Bits for the id; no table has 2^40 rows. The bits above hold the table's number.
_TABLE_BITS = 40


def deduplicate(
    graph: tf.Graph,
    roots: Sequence[Op],
    unchanged: Iterable[Op],
    wide_row_bytes: int = WIDE_ROW_BYTES,
) -> Report:
    """Rewrites a graph so that rows of tables, and their gradients, cross once each.

    Args:
        graph: The graph, changed in place. Doing it twice changes nothing more.
        roots: The training steps.
        unchanged: Ops that are run at other times, and stay as they are with the ops they need.
        wide_row_bytes: Bytes of a row from which a lookup is deduplicated even if no gradient is.

    Returns:
        Counts of the gradients and lookups that were treated or left alone.
    """
    report = Report()
    tables = Tables(PlacedGraph(graph, roots), unchanged, report)
    with adding_to(graph, _SCOPE):
        sums, lookups = tables.sums, tables.lookups
        for group in find_groups(tables):
            if not _is_worth_while(group.sums):
                continue
            join(tables, group)
            sums = [each for each in sums if each not in group.sums]
            lookups = [each for each in lookups if each not in group.lookups]
            report.sums += len(group.sums)
            report.lookups += len(group.lookups)
        large = [each for each in sums if _is_worth_while([each])]
        report.left_alone["the gradient is small"] += len(sums) - len(large)
        _move_sums(tables, large)
        _gather_once(tables, large, lookups, wide_row_bytes)
    if report.sums or report.lookups:
        log.info(
            "equal ids cross once: in %d gradients and %d lookups", report.sums, report.lookups
        )
    for reason, count in sorted((+report.left_alone).items()):
        log.info("equal ids cross as they are in %d places: %s", count, reason)
    return report


def _is_worth_while(sums: Sequence[Sum]) -> bool:
    """Returns whether gradients are large together, or one of them is of unknown size anyway."""
    sizes = [each.bytes for each in sums]
    return None in sizes or sum(filter(None, sizes)) >= FEWEST_BYTES


def _move_sums(tables: Tables, sums: Sequence[Sum]) -> None:
    # The ops themselves move, so their order of summation, and every bit of the sums, stays.
    for each in sums:
        for op in each.ops:
            move_op(op, tables.placed.device(HOME))
        tables.report.sums += 1


def _gather_once(
    tables: Tables, sums: Sequence[Sum], lookups: Sequence[Lookup], wide_row_bytes: int
) -> None:
    by_ids = {origin(each.unique.inputs[0]).ref(): each.unique for each in sums}
    for lookup in lookups:
        ids = origin(lookup.ids)
        unique = by_ids.get(ids.ref())
        if unique is None:
            if lookup.row_bytes < wide_row_bytes:
                tables.report.left_alone["rows are narrow, and no gradient needs equal ids"] += 1
                continue
            with v1.device(tables.placed.device(HOME)):
                unique = by_ids[ids.ref()] = tf.unique(flat(ids)).y.op
        _make_independent(tables, unique, ids)
        _expand(tables, lookup, unique)
        tables.report.lookups += 1


def _make_independent(tables: Tables, unique: Op, ids: Tensor) -> None:
    """Makes the search for equal ids independent of everything but the ids.

    The lookup needs the result before the gradient exists. If it waited for the gradient, which
    depends on the lookup, the graph would have a cycle.
    """
    is_ours = unique.inputs[0].op.name.startswith(f"{_SCOPE}/")
    if unique.inputs[0] is not ids and not is_ours:
        with v1.device(tables.placed.device(HOME)):
            set_input(unique, 0, flat(ids))


def _expand(tables: Tables, lookup: Lookup, unique: Op) -> None:
    """Gathers a row for each distinct id, and repeats the rows where they are used."""
    found, positions = unique.outputs
    placed = tables.placed
    with v1.device(placed.device(placed.task(lookup.gather))):
        once = lookup.gather_for(found)
    with v1.device(placed.device(HOME)):
        repeated = shaped(tf.gather(once, positions), lookup)
    for user, index in tables.uses(lookup.rows):
        set_input(user, index, repeated)


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
