"""Flat storage of tables: tables on one parameter server with equal rows are one variable.

A training step then looks up and updates the rows of all these tables at once, not table by table.
As with other variables in flat storage, other users see the tables as they were, and checkpoints
have their names and shapes.

A row beyond the end of a table would be a row of the next table. So an id outside of its table
becomes -1 before it is used: the lookup fails, as it would have in the table.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import tensorflow as tf

from ..placed_graph import Op, PlacedGraph
from ..rewiring import adding_to
from .rewiring import hand_over_order, redirect
from .rows import StoredTables, TableIds, lay_out
from .table_layout import find_tables
from .table_steps import Lookups, join_lookups, join_updates
from .variable import Part

log = logging.getLogger(__name__)

_SCOPE = "flat_tables"


def fuse_tables(graph: tf.Graph, roots: Sequence[Op]) -> int:
    """Stores tables whose rows are updated alike together.

    Call it when all ops that use the tables are in the graph: savers, initialization and
    evaluation. Ops that are added later find tables without a value, and fail.

    Args:
        graph: The graph, changed in place. Doing it twice changes nothing more.
        roots: The training steps.

    Returns:
        The number of tables, slots included, that are parts of stored ones now.
    """
    placed = PlacedGraph(graph, roots)
    layout = find_tables(graph, placed, roots)
    before, in_step, count = set(graph.get_operations()), set(placed.ops), 0
    with adding_to(graph, _SCOPE):
        for group in layout.groups:
            tables = [update.handles for update in group.updates]
            roles = range(len(tables[0]))
            variables = [
                StoredTables(f"{group.name}/{role}", lay_out(tables, role), group.width)
                for role in roles
            ]
            ids = TableIds()
            lookups = Lookups(placed, layout.levels, in_step)
            hand_over_order(in_step, join_lookups(group, variables[0], lookups, ids))
            updated = join_updates(graph, placed, group, variables, ids)
            hand_over_order(before, updated)
            for variable in variables:
                for part in variable.parts:
                    _redirect_users(placed, in_step, variable, part, updated)
            count += len(roles) * len(tables)
    if count:
        stored = sum(len(group.updates[0].handles) for group in layout.groups)
        log.info("%d tables and slots are stored in %d", count, stored)
    for reason, alone in sorted(layout.left_alone.items()):
        log.info("%d tables are stored by themselves: %s", alone, reason)
    return count


def _redirect_users(
    placed: PlacedGraph,
    in_step: set[Op],
    variable: StoredTables,
    part: Part,
    updated: dict[Op, Op],
) -> None:
    for op in part.handle.outputs[0].consumers():
        if op in updated:
            continue
        if op.type == "ResourceGather" and not op.get_attr("batch_dims"):
            variable.redirect_lookup(part, op)
        else:
            redirect(placed, in_step, op, variable, part)
