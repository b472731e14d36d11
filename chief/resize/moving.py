"""Moves a model between parameter servers: a checkpoint that never touches a disk.

A saver's graph has the names and slices under which the model's tensors are read; another's has
their destinations. Here the reads of one saver are joined to the writes of the other. Each tensor
crosses once, from its old server to its new one. So everything in a checkpoint can be moved:
optimizer slots, partitioned variables, flat storage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ...data_plane.placed_graph import ancestors
from ...errors import JobFailed
from ...model.graph import TrainGraph

v1 = tf.compat.v1

_FROM, _TO = "from", "to"


@dataclass(frozen=True)
class Move:
    """The move of a model.

    Attributes:
        graph: A graph of its own.
        op: Writes every variable of the new layout from those of the old one.
    """

    graph: Any
    op: Any


@dataclass(frozen=True)
class _Slice:
    """One entry of a saver: a slice of a named tensor.

    Attributes:
        spec: The saver's form: "" for the whole tensor, or "SHAPE OFFSET,SIZE:...".
        begin: The first element in each dimension; empty for the whole tensor.
        size: Elements in each dimension.
    """

    spec: str
    begin: tuple[int, ...] = ()
    size: tuple[int, ...] = ()


def plan_move(old: TrainGraph, new: TrainGraph) -> Move:
    """Makes the graph that moves a model from one layout to another.

    Args:
        old: The graph whose variables have the model; finished, as sessions use it.
        new: The same model in another layout.

    Raises:
        JobFailed: The new layout has a variable that the old one has not.
    """
    graph = tf.Graph()
    with graph.as_default():
        held = _import_saved(old)
        moved = _import_restored(new, held)
        return Move(graph, tf.group(*moved))


def _import_saved(old: TrainGraph) -> dict[str, list[tuple[_Slice, Any]]]:
    """Returns the tensors that the old layout's saver would write, by their checkpoint names."""
    entries: list[tuple[str, _Slice, Any]] = []
    for op in _ancestors(old.graph.get_operation_by_name(_save_op(old)), "SaveV2"):
        for name, spec, tensor in zip(*_names_and_specs(op), op.inputs[3:], strict=True):
            # The saver takes tensors to its own task first: they are to go without that stop.
            while tensor.op.type == "Identity":
                tensor = tensor.op.inputs[0]
            entries.append((name, _parse(spec), tensor))
    imported = _import(old.graph, [tensor for _, _, tensor in entries], _FROM)
    held: dict[str, list[tuple[_Slice, Any]]] = defaultdict(list)
    for (name, piece, _), tensor in zip(entries, imported, strict=True):
        held[name].append((piece, tensor))
    return held


def _import_restored(new: TrainGraph, held: dict[str, list[tuple[_Slice, Any]]]) -> list[Any]:
    """Makes the new layout's restore, with tensors of the old one in place of those of a file."""
    restore = new.graph.get_operation_by_name(new.saver.saver_def.restore_op_name)
    given: dict[str, Any] = {}
    for op in _ancestors(restore, "RestoreV2"):
        for name, spec, tensor in zip(*_names_and_specs(op), op.outputs, strict=True):
            if name not in held:
                raise JobFailed(
                    f"the model has the variable {name!r} on {new.num_ps} parameter servers, and "
                    "not on as many as before: it cannot be moved; stop the job and start it "
                    "with that number"
                )
            given[tensor.name] = _cut(held[name], _parse(spec))
    _import(new.graph, [restore], _TO, given)
    return [tf.compat.v1.get_default_graph().get_operation_by_name(f"{_TO}/{restore.name}")]


def _import(
    graph: Any, wanted: Sequence[Any], prefix: str, given: dict[str, Any] | None = None
) -> list[Any]:
    """Copies a part of a graph into the current one; variables and the like keep their names."""
    names = [getattr(each, "op", each).name for each in wanted]
    part = v1.graph_util.extract_sub_graph(graph.as_graph_def(), names)
    for node in part.node:
        node.attr.pop("_class", None)  # Places are settled; its companions may be missing here.
        if "shared_name" in node.attr and not node.attr["shared_name"].s:
            node.attr["shared_name"].s = node.name.encode()
    fetched = [each.name for each in wanted if isinstance(each, tf.Tensor)]
    return list(
        tf.graph_util.import_graph_def(
            part, input_map=given or {}, return_elements=fetched, name=prefix
        )
        or []
    )


def _cut(pieces: list[tuple[_Slice, Any]], wanted: _Slice) -> Any:
    """Cuts one slice of a tensor out of the existing slices."""
    for piece, tensor in pieces:
        if piece == wanted:
            return tensor
    whole = _whole(pieces)
    with v1.device(pieces[0][1].device):
        return tf.slice(whole, wanted.begin, wanted.size) if wanted.begin else whole


def _whole(pieces: list[tuple[_Slice, Any]]) -> Any:
    """Joins a tensor; its slices differ in one dimension, as those of partitioned variables do."""
    if len(pieces) == 1:
        return pieces[0][1]
    ordered = sorted(pieces, key=lambda piece: piece[0].begin)
    begins = [piece.begin for piece, _ in ordered]
    axis = next(i for i, values in enumerate(zip(*begins, strict=True)) if len(set(values)) > 1)
    with v1.device(ordered[0][1].device):
        return tf.concat([tensor for _, tensor in ordered], axis)


def _names_and_specs(op: Any) -> tuple[list[str], list[str]]:
    names, specs = (tf.get_static_value(op.inputs[place]) for place in (1, 2))
    return [name.decode() for name in names], [spec.decode() for spec in specs]


def _parse(spec: str) -> _Slice:
    """Reads a saver's slice, as "10 4 0,5:-": rows 0 to 4 of ten, and all columns."""
    if not spec:
        return _Slice("")
    *shape, ranges = spec.split(" ")
    pairs = [
        (0, int(full)) if part == "-" else tuple(int(number) for number in part.split(","))
        for full, part in zip(shape, ranges.split(":"), strict=True)
    ]
    return _Slice(spec, tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))


def _save_op(graph: TrainGraph) -> str:
    return str(graph.saver.saver_def.save_tensor_name).partition(":")[0]


def _ancestors(op: Any, kind: str) -> list[Any]:
    """Returns the ops of one type that an op waits for."""
    return [each for each in ancestors([op]) if each.type == kind]
