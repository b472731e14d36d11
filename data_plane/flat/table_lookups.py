"""Joint lookups: one lookup in place of one for each table that is stored with others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ...tf_internals import set_input
from ..placed_graph import HOME, Op, PlacedGraph
from ..sparse.lookups import Lookup, shaped
from .rows import StoredTables
from .table_ids import TableIds
from .table_layout import TableGroup
from .variable import Part

v1 = tf.compat.v1

# The op's name, which is part of the message if it fails.
_NAME = "lookup_in_which_-1_is_an_id_that_is_in_no_table"


@dataclass(frozen=True)
class Lookups:
    """The context of a step's lookups.

    Attributes:
        placed: The graph.
        levels: Levels of ops: joined ops of one level do not wait for each other.
        in_step: The ops of the steps.
    """

    placed: PlacedGraph
    levels: Mapping[Op, int]
    in_step: Set[Op]

    def users(self, lookup: Op) -> list[Op]:
        """Returns the ops of the steps that take the rows."""
        users = dict.fromkeys(lookup.outputs[0].consumers())
        return [op for op in users if op in self.in_step]


def join_lookups(
    group: TableGroup, table: StoredTables, lookups: Lookups, ids: TableIds
) -> dict[Op, Op]:
    """Joins the steps' lookups in all tables of a group.

    Rows that are used on the parameter server are looked up as before.

    Args:
        group: The tables.
        table: The variable that stores them.
        lookups: The lookups.
        ids: The joint ids of the group.

    Returns:
        The joint lookup for each replaced one.
    """
    stands_for: dict[Op, Op] = {}
    for members in _joinable(group, table, lookups).values():
        joined = _join(table, members, lookups, ids)
        stands_for |= dict.fromkeys((lookup for _, lookup in members), joined)
    return stands_for


def _joinable(
    group: TableGroup, table: StoredTables, lookups: Lookups
) -> dict[Any, list[tuple[Part, Op]]]:
    placed = lookups.placed
    groups: dict[Any, list[tuple[Part, Op]]] = defaultdict(list)
    for part, update in zip(table.parts, group.updates, strict=True):
        for lookup in update.lookups:
            users, shape = lookups.users(lookup), lookup.inputs[1].shape
            is_at_home = all(placed.task(user) == HOME for user in users)
            if users and is_at_home and shape.rank is not None:
                ids = lookup.inputs[1]
                key = (lookups.levels[lookup], placed.roots_of[lookup], ids.dtype)
                groups[key].append((part, lookup))
    return groups


def _join(
    table: StoredTables, members: list[tuple[Part, Op]], lookups: Lookups, ids: TableIds
) -> Op:
    at_home = lookups.placed.device(HOME)
    parts = [part for part, _ in members]
    joined, sizes = ids.join(parts, [lookup.inputs[1] for _, lookup in members], at_home)
    rows = table.look_up(joined, _NAME)
    with v1.device(at_home):
        pieces = [rows] if len(members) == 1 else tf.split(rows, sizes, num=len(members))
        width = tf.TensorShape([table.width])
        for (_, lookup), piece in zip(members, pieces, strict=True):
            found = shaped(piece, Lookup(lookup, width))
            for user in lookups.users(lookup):
                for index, tensor in enumerate(user.inputs):
                    if tensor is lookup.outputs[0]:
                        set_input(user, index, found)
    return rows.op
