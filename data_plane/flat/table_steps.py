"""Joint lookups and updates: one in place of one for each table that is stored with others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ...tf_internals import set_input
from ..placed_graph import HOME, Op, PlacedGraph, Tensor
from ..sparse.lookups import Lookup, shaped
from .rows import Sizes, StoredTables, TableIds
from .table_layout import TableGroup
from .table_updates import Kind
from .variable import Part

v1 = tf.compat.v1

# The op's name, which is part of the message if it fails.
_NAME = "lookup_in_which_-1_is_an_id_that_is_in_no_table"
# With this many ids or more, TensorFlow's threads share a scatter. Values for equal ids are then
# added in any order, so the sum may round differently from run to run.
_UNORDERED_IDS = 1024


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


def join_updates(
    graph: tf.Graph,
    placed: PlacedGraph,
    group: TableGroup,
    variables: Sequence[StoredTables],
    ids: TableIds,
) -> dict[Op, Op]:
    """Copies the ops of one table's update, with joint ids and values for all tables.

    Each op treats rows one by one (see `table_updates`), and tables have no row in common. So each
    row gets the same operations on the same values as before.

    Args:
        graph: The graph.
        placed: The ops of its training steps.
        group: The tables.
        variables: The variables that store the tables and their slots.
        ids: The joint ids of the group.

    Returns:
        The joint op for each op of the old updates.
    """
    first, updates = group.updates[0], group.updates
    device = _device(placed, [update.ids for update in updates])
    joined, sizes = ids.join(variables[0].parts, [update.ids for update in updates], device)
    with v1.device(_device(placed, [update.values for update in updates])):
        values = tf.concat([update.values for update in updates], 0)
    made = {first.ids.ref(): joined, first.values.ref(): values}
    for handle, variable in zip(first.handles, variables, strict=True):
        made[handle.outputs[0].ref()] = variable.handle
    stands_for: dict[Op, Op] = {}
    for place, op in enumerate(first.ops):
        inputs = [made.get(tensor.ref(), tensor) for tensor in op.inputs]
        kinds = [first.kinds[tensor.ref()] for tensor in op.inputs]
        with v1.device(group.device):
            if op.type.startswith("ResourceScatter") and Kind.IDS in kinds:
                new = _scatter_in_order(graph, op, inputs, sizes, len(updates))
            else:
                new = [_copy(graph, op, inputs)] * len(updates)
                for old_output, output in zip(op.outputs, new[0].outputs, strict=True):
                    made[old_output.ref()] = output
        stands_for |= zip((update.ops[place] for update in updates), new, strict=True)
    return stands_for


def _device(placed: PlacedGraph, tensors: Iterable[Tensor]) -> str:
    """Returns the device on which most of some tensors are made."""
    tasks = Counter(placed.task(tensor.op) for tensor in tensors)
    return placed.device(tasks.most_common(1)[0][0])


def _copy(graph: tf.Graph, op: Op, inputs: Sequence[Tensor]) -> Op:
    attributes = {name: value for name, value in op.node_def.attr.items() if name != "_class"}
    return graph.create_op(op.type, inputs, [], attrs=attributes)


def _scatter_in_order(
    graph: tf.Graph, op: Op, inputs: Sequence[Tensor], sizes: Sizes, count: int
) -> list[Op]:
    """Scatters rows in their order, since several of them may be for one id.

    Returns:
        The scatter op for each of the tables.
    """
    table, ids, values = inputs
    batches = _batches(sizes, count)
    if len(batches) == 1:
        return [_copy(graph, op, inputs)] * count
    lengths: Any = sizes
    if not tf.is_tensor(sizes):
        lengths = [sum(sizes[index] for index in batch) for batch in batches]
    pieces = zip(
        tf.split(ids, lengths, num=len(batches)),
        tf.split(values, lengths, num=len(batches)),
        strict=True,
    )
    return [
        scatter
        for batch, (of_ids, of_values) in zip(batches, pieces, strict=True)
        for scatter in [_copy(graph, op, [table, of_ids, of_values])] * len(batch)
    ]


def _batches(sizes: Sizes, count: int) -> list[list[int]]:
    """Returns tables that are scattered together: as many as TensorFlow leaves to one thread."""
    # Of unknown size, each table keeps its own scatter, which TensorFlow splits or not as before.
    if tf.is_tensor(sizes):
        return [[index] for index in range(count)]
    batches: list[list[int]] = []
    filled = 0
    for index, size in enumerate(sizes):
        if not batches or filled + size >= _UNORDERED_IDS:
            batches.append([])
            filled = 0
        batches[-1].append(index)
        filled += size
    return batches
