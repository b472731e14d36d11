"""Rows of tables cross once: equal ids are found, and their gradients summed, before they cross.

Most optimizers sum what a gradient has for equal rows, next to the table: all rows cross, and some
are thrown together there. Here the same ops, on the same values, run on the worker. The ids that
they leave serve the lookup as well: the parameter server gathers each row once, and the worker
repeats it where it is needed. Nothing is rounded differently, so weights are the same to the last
bit. Tables on one parameter server whose rows are alike share these ops.

Gradient descent adds each row of its gradient to the table by itself. To sum them before would
round differently, so all of them cross. Its lookups have equal ids found if rows are wide.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import tensorflow as tf

from ..placed_graph import HOME, Op, PlacedGraph, Tensor
from ..rewiring import adding_to
from .groups import find_groups, join
from .lookups import Lookup, Report, Sum, Tables, flat, origin, shaped

v1 = tf.compat.v1
log = logging.getLogger(__name__)

# With Zipf ids (exponent 1.1, batch 256) over loopback, finding equal ids takes as much time as
# it saves at 256 to 512 bytes; a slower link gains from fewer.
WIDE_ROW_BYTES = 512
# What was made smaller crosses in three transfers of its own, because its size is not known.
# Gradients of fewer bytes are quicker among the others.
FEWEST_BYTES = 64 << 10
_SCOPE = "sparse"


def deduplicate(
    graph: tf.Graph,
    roots: Sequence[Op],
    unchanged: Iterable[Op],
    wide_row_bytes: int = WIDE_ROW_BYTES,
) -> Report:
    """Has rows of tables, and the gradients of rows, cross between tasks once each.

    Args:
        graph: The graph, changed in place. Doing it twice changes nothing more.
        roots: The training steps.
        unchanged: Ops that are run at other times, and stay as they are with all that they need.
        wide_row_bytes: Bytes of a row from which on a lookup has equal ids found even if no
            gradient does.

    Returns:
        What was done, and how much was left alone.
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
    """Whether what crosses is large, or of a size that is not known anyway."""
    sizes = [each.bytes for each in sums]
    return None in sizes or sum(filter(None, sizes)) >= FEWEST_BYTES


def _move_sums(tables: Tables, sums: Sequence[Sum]) -> None:
    for each in sums:
        for op in each.ops:
            op._set_device(tables.placed.device(HOME))
            op._clear_attr("_class")
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
    """Has equal ids found as soon as the ids are there, whatever the gradient waits for."""
    is_ours = unique.inputs[0].op.name.startswith(f"{_SCOPE}/")
    if unique.inputs[0] is not ids and not is_ours:
        with v1.device(tables.placed.device(HOME)):
            unique._update_input(0, flat(ids))


def _expand(tables: Tables, lookup: Lookup, unique: Op) -> None:
    """Has rows gathered for the ids that differ, and repeated where they are used."""
    found, positions = unique.outputs
    placed = tables.placed
    with v1.device(placed.device(placed.task(lookup.gather))):
        once = lookup.gather_for(found)
    with v1.device(placed.device(HOME)):
        repeated = shaped(tf.gather(once, positions), lookup)
    for user, index in tables.uses(lookup.rows):
        user._update_input(index, repeated)
