"""Coalescing: a graph pass that sends small tensors between two tasks in buckets.

TensorFlow sends each tensor by itself, which takes about 50 microseconds however small it is. The
pass takes small tensors that cross between the same two tasks and never wait for each other. They
are flattened and joined on their task, cross as one, and are split on the other task. A large
tensor crosses alone, since joining it would cost more than a call. A very large one crosses in
pieces, which are in flight at the same time.

Each op still runs on its task, on the same values: nothing is read earlier or later. Only the uses
of a tensor may begin later, when the other tensors of its bucket have arrived.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from ..tf_internals import set_control_inputs
from .placed_graph import Crossing, Op, PlacedGraph, TaskDevice, Tensor, is_reference
from .rewiring import adding_to, is_in_control_flow, replace

v1 = tf.compat.v1
log = logging.getLogger(__name__)

_SCOPE = "transfer"
# A constant as small as this is copied to where it is used.
_SMALL_CONST_BYTES = 1024
# Op types that may wait for something outside of the step; no other tensor should wait with them.
_WAITING = ("Dequeue", "TakeGradient", "TakeMany", "Unstage", "TakeIndexedSlices")
# A tensor above this part of a bucket crosses alone: to join it would cost more than a call.
_LARGEST_JOINED = 1 / 16
# A tensor of this many buckets or more is cut. Smaller ones are in flight together anyway.
_SMALLEST_CUT = 8
# The alignment of TensorFlow's tensors; see `_row_length`.
_ROW_BYTES = 64
# Their sizes cost a transfer as well, so joining fewer tensors of unknown size gains nothing.
_FEWEST_OF_UNKNOWN_SIZE = 3


@dataclass
class Report:
    """Counts of the tensors that coalescing joined or left alone.

    Attributes:
        tensors: Tensors that crossed by themselves before.
        transfers: Tensors that cross in their place.
        left_alone: Number of tensors that were left as they were, by reason.
    """

    tensors: int = 0
    transfers: int = 0
    left_alone: Counter[str] = field(default_factory=Counter)


def coalesce(
    graph: tf.Graph, roots: Sequence[Op], unchanged: Iterable[Op], bucket_bytes: int
) -> Report:
    """Rewrites a graph so that tensors cross between tasks in buckets.

    Args:
        graph: The graph, changed in place. Doing it twice changes nothing more.
        roots: The training steps; tensors that no root needs are left alone.
        unchanged: Ops that are run at other times, with the ops that they need: initialization,
            when not all variables can be read yet. They get their tensors as before.
        bucket_bytes: Bytes of a bucket, more than 0.

    Returns:
        Counts of what was joined or left alone.
    """
    report = Report()
    placed = PlacedGraph(graph, roots)
    with adding_to(graph, _SCOPE):
        _coalesce(placed, placed.needed_by(unchanged), bucket_bytes, report)
        _join_control_edges(placed)
    if report.tensors:
        log.info(
            "%d tensors cross between tasks in each step, in %d transfers",
            report.tensors,
            report.transfers,
        )
    for reason, count in sorted(report.left_alone.items()):
        log.info("%d tensors cross by themselves: %s", count, reason)
    return report


def _coalesce(placed: PlacedGraph, unchanged: set[Op], bucket_bytes: int, report: Report) -> None:
    groups: dict[Any, list[Crossing]] = defaultdict(list)
    for crossing in placed.crossings():
        if _is_ours(crossing, unchanged):
            continue
        reason = _reason_to_leave(placed, crossing, unchanged)
        if reason:
            report.left_alone[reason] += 1
        elif _is_small_const(crossing.tensor):
            _copy_const(placed, crossing)
        else:
            # Tensors share a bucket only with the same stage and roots. Tensors of one stage never
            # wait for each other, so a bucket can neither add a cycle nor delay an earlier stage.
            # With the same roots, a bucket never makes a run compute what that run does not need.
            dtype = crossing.tensor.dtype.base_dtype
            is_static = crossing.tensor.shape.is_fully_defined()
            key = (crossing.source, crossing.target, dtype, crossing.stage, crossing.roots)
            groups[*key, is_static].append(crossing)
    for (*_, is_static), group in groups.items():
        group.sort(key=lambda crossing: _order(placed, crossing))
        if is_static:
            for bucket in _buckets(group, bucket_bytes):
                _transfer(placed, bucket, bucket_bytes, report)
        elif len(group) >= _FEWEST_OF_UNKNOWN_SIZE:
            _transfer_with_sizes(placed, group, report)
        else:
            report.left_alone["their size is not known"] += len(group)


def _is_ours(crossing: Crossing, unchanged: set[Op]) -> bool:
    """Returns whether a crossing is a bucket already, or has no uses that may change."""
    # The first test makes the pass idempotent: sessions of one graph are prepared one by one.
    return crossing.tensor.op.name.startswith(f"{_SCOPE}/") or all(
        op in unchanged for op, _ in crossing.uses
    )


def _reason_to_leave(placed: PlacedGraph, crossing: Crossing, unchanged: set[Op]) -> str | None:
    tensor, ops = crossing.tensor, [op for op, _ in crossing.uses]
    dtype = tensor.dtype
    if is_reference(dtype) or dtype == tf.resource:
        return "a handle"
    if not (dtype.is_numpy_compatible and dtype.size) or dtype == tf.string:
        return f"the type is {dtype.name}"
    if is_in_control_flow(placed, crossing):
        return "in a loop or a condition"
    if any(op in unchanged for op in ops):
        return "also used by the initialization"
    if any(word in tensor.op.type for word in _WAITING):
        return "it comes out of a queue"
    shape = tensor.shape
    if shape.rank is None or shape.as_list().count(None) > 1:
        return "their shape is not known"
    return "it is empty" if 0 in shape.as_list() else None


def _is_small_const(tensor: Tensor) -> bool:
    op = tensor.op
    return (
        op.type == "Const"
        and not op.control_inputs
        and tensor.shape.num_elements() * tensor.dtype.size <= _SMALL_CONST_BYTES
    )


def _copy_const(placed: PlacedGraph, crossing: Crossing) -> None:
    with v1.device(placed.device(crossing.target)):
        value = tf.make_ndarray(crossing.tensor.op.get_attr("value"))
        replace(crossing, tf.constant(value, crossing.tensor.dtype, name=crossing.tensor.op.name))


def _order(placed: PlacedGraph, crossing: Crossing) -> int:
    """Returns a tensor's position in its group: tensors used or made first cross first."""
    # Tensors of stage 0 (parameters) wait for no transfer, so those that are used first come first.
    # Later tensors (gradients) share a bucket with those that are made at about the same time.
    if crossing.stage == 0:
        return min(placed.index[op] for op, _ in crossing.uses)
    return placed.index[crossing.tensor.op]


def _buckets(group: Sequence[Crossing], bucket_bytes: int) -> Iterator[list[Crossing]]:
    """Cuts a group, in its order, into buckets; a large tensor is alone in its bucket."""
    bucket: list[Crossing] = []
    filled = 0
    for crossing in group:
        size = _bytes(crossing.tensor)
        if size > bucket_bytes * _LARGEST_JOINED:
            yield [crossing]
            continue
        if bucket and filled + size > bucket_bytes:
            yield bucket
            bucket, filled = [], 0
        bucket.append(crossing)
        filled += size
    if bucket:
        yield bucket


def _transfer(
    placed: PlacedGraph, bucket: Sequence[Crossing], bucket_bytes: int, report: Report
) -> None:
    # Join, cut, concatenate, split and reshape move bytes and compute nothing, so values keep every
    # bit.
    first = bucket[0]
    total = sum(_bytes(crossing.tensor) for crossing in bucket)
    pieces = -(-total // bucket_bytes) if total >= bucket_bytes * _SMALLEST_CUT else 1
    report.tensors += len(bucket)
    report.transfers += pieces
    if len(bucket) == pieces == 1:
        return
    tensors = [crossing.tensor for crossing in bucket]
    row = _row_length(tensors)
    with v1.device(placed.device(first.source)):
        sent = _cut(_pack(tensors, row), pieces)
    with v1.device(placed.device(first.target)):
        packed = sent[0] if pieces == 1 else tf.concat(sent, 0)
        sizes = [tensor.shape.num_elements() // row for tensor in tensors]
        parts = [packed] if len(sizes) == 1 else tf.split(packed, sizes)
        for crossing, part in zip(bucket, parts, strict=True):
            shape = crossing.tensor.shape
            replace(crossing, part if part.shape == shape else tf.reshape(part, shape))


def _transfer_with_sizes(placed: PlacedGraph, group: Sequence[Crossing], report: Report) -> None:
    first = group[0]
    report.tensors += len(group)
    report.transfers += 2
    tensors = [crossing.tensor for crossing in group]
    with v1.device(placed.device(first.source)):
        packed = _pack(tensors)
        sizes = tf.stack([tf.size(tensor) for tensor in tensors])
    with v1.device(placed.device(first.target)):
        parts = tf.split(packed, tf.identity(sizes), num=len(group))
        for crossing, part in zip(group, parts, strict=True):
            shape = [-1 if size is None else size for size in crossing.tensor.shape.as_list()]
            part = tf.reshape(part, shape)
            part.set_shape(crossing.tensor.shape)
            replace(crossing, part)


def _row_length(tensors: Sequence[Tensor]) -> int:
    """Returns the elements in 64 bytes if all tensors fill such rows, else 1.

    TensorFlow splits a tensor without a copy where the parts begin at multiples of 64 bytes.
    """
    row = max(1, _ROW_BYTES // tensors[0].dtype.size)
    return row if all(tensor.shape.num_elements() % row == 0 for tensor in tensors) else 1


def _pack(tensors: Sequence[Tensor], row: int = 1) -> Tensor:
    shape = [-1] if row == 1 else [-1, row]
    rows = [tensor if _is_packed(tensor, row) else tf.reshape(tensor, shape) for tensor in tensors]
    return rows[0] if len(rows) == 1 else tf.concat(rows, 0)


def _is_packed(tensor: Tensor, row: int) -> bool:
    return tensor.shape.rank == 1 if row == 1 else tensor.shape[1:].as_list() == [row]


def _cut(packed: Tensor, pieces: int) -> list[Tensor]:
    if pieces == 1:
        return [packed]
    total = packed.shape.as_list()[0]
    edges = [total * piece // pieces for piece in range(pieces + 1)]
    return list(tf.split(packed, [end - begin for begin, end in itertools.pairwise(edges)]))


def _bytes(tensor: Tensor) -> int:
    return int(tensor.shape.num_elements() * tensor.dtype.size)


def _join_control_edges(placed: PlacedGraph) -> None:
    """Makes an op that waits for several ops of another task wait for one op there.

    Each control edge between tasks is a transfer by itself. The joint `NoOp` runs on the other task
    after the same ops, so the order of effects stays, with one transfer in place of several.
    """
    joined: dict[Any, Op] = {}
    for op in placed.ops:
        by_task: dict[TaskDevice, list[Op]] = defaultdict(list)
        for other in op.control_inputs:
            by_task[placed.task(other)].append(other)
        remote = {
            task: others
            for task, others in by_task.items()
            if len(others) > 1 and task != placed.task(op)
        }
        if not remote or any(map(placed.in_control_flow, (op, *op.control_inputs))):
            continue
        kept = [other for other in op.control_inputs if placed.task(other) not in remote]
        for task, others in remote.items():
            key = (task, frozenset(others))
            if key not in joined:
                with v1.device(placed.device(task)), tf.control_dependencies(others):
                    joined[key] = tf.no_op()
            kept.append(joined[key])
        set_control_inputs(op, kept)
