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
from collections.abc import Iterable, Sequence

import tensorflow as tf

from ...tf_internals import move_op, set_input
from ..placed_graph import HOME, Op, PlacedGraph, Tensor
from ..rewiring import adding_to
from .groups import find_groups, join
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
