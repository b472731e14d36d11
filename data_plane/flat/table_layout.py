"""Layout of tables: groups of tables that are stored together, and their order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from ..placed_graph import Op, PlacedGraph, Tensor
from .layout import Group, Layout, arrange
from .rows import padded_rows
from .rules import Rules, Structure, is_stored, levels
from .table_updates import DoesNotFit, TableUpdate, find_update

# TensorFlow's kernels count the elements of larger variables with 64 bits, which is slower.
MOST_ELEMENTS = (1 << 31) - 1


class TableGroup(Group[TableUpdate]):
    """Tables that are stored together."""

    @property
    def width(self) -> int:
        """Elements of a row."""
        return _width(self.updates[0].handles[0])


def find_tables(graph: tf.Graph, placed: PlacedGraph, roots: Sequence[Op]) -> Layout[TableGroup]:
    """Finds the tables that are stored together.

    Args:
        graph: The graph.
        placed: The ops of its training steps.
        roots: The training steps.

    Returns:
        The groups, and counts of the tables in none.
    """
    found, left_alone = _find_updates(graph, placed, roots)
    joined = {op for update in found for op in (*update.ops, *update.lookups)}
    levels_of = levels(placed, joined) if len(found) > 1 else {}
    alike = _groups(placed, found, levels_of).values()
    groups = arrange(TableGroup, alike, _elements, MOST_ELEMENTS, left_alone)
    return Layout(groups, left_alone, levels_of)


def _find_updates(
    graph: tf.Graph, placed: PlacedGraph, roots: Sequence[Op]
) -> tuple[list[TableUpdate], Counter[str]]:
    rules, structure, steps = Rules(graph, placed, may_be_read=False), Structure(), set(roots)
    in_step = set(placed.ops)

    def users(tensor: Tensor) -> Iterable[Op]:
        return sorted(in_step.intersection(tensor.consumers()), key=placed.index.__getitem__)

    found: dict[Op, TableUpdate] = {}
    reasons: dict[Op, str] = {}
    for table in _looked_up(placed):
        try:
            update = find_update(table, users, structure)
            _check(placed, update, rules, steps)
            found[table] = update
        except DoesNotFit as error:
            reasons[table] = str(error)
    slots = {slot for update in found.values() for slot in update.handles[1:]}
    left_alone = Counter(why for table, why in reasons.items() if table not in slots)
    left_alone["it is a ref variable"] += sum(op.type in _OF_REFS for op in placed.ops)
    uses = Counter(op for table in found.keys() - slots for op in found[table].ops)
    updates = []
    for table, update in found.items():
        if any(uses[op] > 1 for op in update.ops):
            left_alone["another table has the same update"] += 1
        elif table not in slots:
            updates.append(update)
    return updates, +left_alone


_OF_REFS = frozenset(
    {"ScatterAdd", "ScatterSub", "SparseApplyMomentum", "SparseApplyAdagrad", "SparseApplyFtrl"}
)


def _looked_up(placed: PlacedGraph) -> list[Op]:
    """Returns the variables in which the steps look up rows, in the order of these lookups."""
    gathers = [op for op in placed.ops if op.type == "ResourceGather"]
    handles = [op.inputs[0].op for op in sorted(gathers, key=placed.index.__getitem__)]
    are_variables = (op for op in handles if op.type == "VarHandleOp" and not is_stored(op))
    return list(dict.fromkeys(are_variables))


def _check(placed: PlacedGraph, update: TableUpdate, rules: Rules, roots: set[Op]) -> None:
    shape = _shape(update.handles[0])
    if shape.rank != 2 or not shape.num_elements():
        raise DoesNotFit("it is no table of rows")
    if any(op in roots for op in update.ops):
        raise DoesNotFit("its update is a step by itself")
    if any(map(placed.in_control_flow, (*update.ops, *update.lookups))):
        raise DoesNotFit("it is used in a condition or a loop")
    for lookup in update.lookups:
        if lookup.get_attr("batch_dims"):
            raise DoesNotFit("a lookup has batch dimensions")
    reason = rules.reason_to_leave(update.handles, {*update.ops, *update.lookups})
    if reason:
        raise DoesNotFit(reason)


def _groups(
    placed: PlacedGraph, updates: Sequence[TableUpdate], levels_of: dict[Op, int]
) -> dict[Any, list[TableUpdate]]:
    """Groups updates that can be one update of the tables side by side.

    Their ops agree in everything but ids, values and table. Equal levels and roots make sure that
    none waits for another, and that a run which needs one of them needs all.
    """
    groups: dict[Any, list[TableUpdate]] = defaultdict(list)
    for update in updates:
        handle = update.handles[0]
        key = (
            handle.device,
            handle.get_attr("container"),
            handle.get_attr("dtype"),
            _width(handle),
            update.likeness,
            update.values.dtype,
            tuple((levels_of.get(op), placed.roots_of[op]) for op in update.ops),
        )
        groups[key].append(update)
    return groups


def _elements(update: TableUpdate) -> int:
    handle = update.handles[0]
    return padded_rows(handle) * _width(handle)


def _shape(handle: Op) -> tf.TensorShape:
    return tf.TensorShape(handle.get_attr("shape"))


def _width(handle: Op) -> int:
    return int(_shape(handle).as_list()[1])
