"""Layout of flat storage: groups of variables that are stored together, and their order.

The layout follows from the graph alone. So each task that builds the same model computes the same
layout.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import tensorflow as tf

from ..placed_graph import Op, PlacedGraph, Tensor
from .rules import Rules, Structure, attributes, elements, is_stored, levels, stored_name

# Variables begin at multiples of this. Then TensorFlow splits a received tensor without a copy, and
# its kernels treat each element with the same vector instructions as in a variable alone.
ROW_BYTES = 64
_APPLIES = "ResourceApply"
_GRADIENT_NAMES = ("grad", "delta")
# Kernels that use only operations with one correct result (IEEE 754). Other kernels may round the
# last elements of a variable, which do not fill a vector, differently.
_SAME_IN_ANY_PLACE = frozenset(
    {
        "ResourceApplyGradientDescent",
        "ResourceApplyMomentum",
        "ResourceApplyKerasMomentum",
        "ResourceApplyAdam",
    }
)


@dataclass(frozen=True, eq=False)
class Update:
    """The update of a variable in a training step.

    Attributes:
        apply: The op that applies the gradient.
        gradient: The gradient, of the variable's shape.
        handles: Handle ops of the variable and of its slots.
        places: Indices of the handles among the inputs of `apply`.
        size: Elements of the variable, and of each slot.
        rows: Rows of `ROW_BYTES` that the variable takes, and each slot.
    """

    apply: Op
    gradient: Tensor
    handles: tuple[Op, ...]
    places: tuple[int, ...]
    size: int
    rows: int


def find_updates(
    graph: tf.Graph, placed: PlacedGraph, roots: Sequence[Op], largest_bytes: int
) -> tuple[list[Update], Counter[str]]:
    """Finds the updates whose variables and slots can be stored with others.

    Args:
        graph: The graph.
        placed: The ops of its training steps.
        roots: The training steps.
        largest_bytes: Bytes above which a variable stays by itself.

    Returns:
        The updates in the order of the graph, and the number of variables that stay by themselves,
        by reason.
    """
    rules = Rules(graph, placed, may_be_read=True)
    steps = set(roots)
    found: list[Update] = []
    left_alone: Counter[str] = Counter()
    for op in sorted(placed.ops, key=placed.index.__getitem__):
        if op.type.startswith(_APPLIES) and not _is_flat(op):
            update = _update(op)
            if update is None:
                left_alone["it is no variable"] += 1
            elif reason := _reason_to_leave(placed, update, rules, steps, largest_bytes):
                left_alone[reason] += 1
            else:
                found.append(update)
        elif op.type.startswith("Apply"):
            left_alone["it is a ref variable"] += 1
    return found, left_alone


def _reason_to_leave(
    placed: PlacedGraph,
    update: Update,
    rules: Rules,
    roots: Collection[Op],
    largest_bytes: int,
) -> str | None:
    apply, gradient = update.apply, update.gradient
    if placed.in_control_flow(apply) or apply in roots:
        return "its update is in a condition, or a step by itself"
    if not gradient.dtype.size or ROW_BYTES % gradient.dtype.size:
        return f"its type is {gradient.dtype.name}"
    if update.size * gradient.dtype.size > largest_bytes:
        return f"it has more than {largest_bytes} bytes"
    if not update.size:
        return "it is empty, or its shape is not known"
    if update.handles[0].get_attr("dtype") != gradient.dtype.base_dtype:
        return "its gradient has another type"
    is_whole = update.size * gradient.dtype.size % ROW_BYTES == 0
    if not is_whole and apply.type not in _SAME_IN_ANY_PLACE:
        return f"{apply.type} may round its last elements in another way"
    return rules.reason_to_leave(update.handles, {apply})


def _is_flat(apply: Op) -> bool:
    """Returns whether an op updates a stored variable of an earlier pass."""
    return any(is_stored(tensor.op) for tensor in apply.inputs if tensor.op.type == "VarHandleOp")


def _update(apply: Op) -> Update | None:
    """Returns an apply op's parts; None if its variable is not the output of a handle op."""
    names = [argument.name for argument in apply.op_def.input_arg]
    places = [place for place, tensor in enumerate(apply.inputs) if tensor.dtype == tf.resource]
    handles = [apply.inputs[place].op for place in places]
    gradients = [names.index(name) for name in _GRADIENT_NAMES if name in names]
    if len(gradients) != 1 or any(handle.type != "VarHandleOp" for handle in handles):
        return None
    gradient, size = apply.inputs[gradients[0]], elements(handles[0])
    rows = -(-size * gradient.dtype.size // ROW_BYTES)
    return Update(apply, gradient, tuple(handles), tuple(places), size, rows)


class Stored(Protocol):
    """The update of a variable that can be stored with others."""

    @property
    def handles(self) -> tuple[Op, ...]:
        """Handle ops of the variable and of its slots."""


U = TypeVar("U", bound=Stored)


@dataclass(frozen=True, eq=False)
class Group(Generic[U]):
    """Variables that are stored together.

    Attributes:
        updates: The variables' updates, in the order of storage.
        name: A name that is the same for equal variables in an equal order, in every process.
    """

    updates: tuple[U, ...]
    name: str

    @property
    def device(self) -> str:
        """The variables' device."""
        return str(self.updates[0].handles[0].device)


G = TypeVar("G", bound=Group[Any])


@dataclass
class Layout(Generic[G]):
    """Groups, and the reasons why other variables are in none.

    Attributes:
        groups: Variables that are stored together.
        left_alone: Number of variables that stay as they are, by reason.
        levels: Levels of the steps' ops: joined ops of one level do not wait for each other.
    """

    groups: list[G]
    left_alone: Counter[str]
    levels: Mapping[Op, int]


def arrange(
    kind: type[G],
    alike: Iterable[Sequence[Any]],
    size: Callable[[Any], int],
    most: int,
    left_alone: Counter[str],
) -> list[G]:
    """Makes groups of updates that are alike, of a size of `most` at most; counts those alone."""
    groups = []
    for updates in (part for each in alike for part in _cut(each, size, most)):
        if len(updates) > 1:
            groups.append(kind(tuple(updates), stored_name([each.handles for each in updates])))
        else:
            left_alone["no other one is updated like it"] += 1
    return groups


class Bucket(Group[Update]):
    """A group of variables that are updated as a whole."""

    @property
    def rows(self) -> int:
        """Rows of all variables together."""
        return sum(update.rows for update in self.updates)

    @property
    def dtype(self) -> Any:
        """The variables' dtype."""
        return self.updates[0].gradient.dtype.base_dtype

    @property
    def width(self) -> int:
        """Elements of a row."""
        return ROW_BYTES // int(self.dtype.size)


def find_layout(
    graph: tf.Graph, placed: PlacedGraph, roots: Sequence[Op], bucket_bytes: int, largest_bytes: int
) -> Layout[Bucket]:
    """Finds the variables that are stored together.

    Args:
        graph: The graph.
        placed: The ops of its training steps.
        roots: The training steps.
        bucket_bytes: Bytes of a bucket, at most.
        largest_bytes: Bytes above which a variable stays by itself.

    Returns:
        The buckets, and counts of the variables in none.
    """
    found, left_alone = find_updates(graph, placed, roots, largest_bytes)
    levels_of = levels(placed, {update.apply for update in found})
    alike = _groups(placed, found, levels_of).values()
    buckets = arrange(Bucket, alike, lambda each: each.rows * ROW_BYTES, bucket_bytes, left_alone)
    return Layout(buckets, left_alone, levels_of)


def _groups(
    placed: PlacedGraph, updates: Sequence[Update], levels_of: Mapping[Op, int]
) -> dict[Any, list[Update]]:
    """Groups updates that can be one update of the variables side by side.

    One op runs in place of several, so these must agree in everything but gradient and variable:
    device, op, attributes, dtype and hyperparameters. At one level no update waits for another, so
    the joint one adds no cycle. With the same roots a run that needs one update needs all of them,
    and a run that reads one variable reads all.
    """
    structure = Structure()
    groups: dict[Any, list[Update]] = defaultdict(list)
    for update in updates:
        apply, handle = update.apply, update.handles[0]
        taken = {*update.places, _gradient_place(update)}
        key = (
            handle.device,
            handle.get_attr("container"),
            apply.type,
            attributes(apply),
            update.gradient.dtype.base_dtype,
            tuple(structure.key(t) for place, t in enumerate(apply.inputs) if place not in taken),
            levels_of[apply],
            placed.roots_of[apply],
            _roots_of_reads(placed, handle),
        )
        groups[key].append(update)
    return groups


def _gradient_place(update: Update) -> int:
    return next(
        place for place, tensor in enumerate(update.apply.inputs) if tensor is update.gradient
    )


def _roots_of_reads(placed: PlacedGraph, handle: Op) -> int:
    roots = 0
    for op in handle.outputs[0].consumers():
        roots |= placed.roots_of.get(op, 0)
    return roots


def _cut(alike: Sequence[Any], size: Callable[[Any], int], most: int) -> Iterator[list[Any]]:
    group: list[Any] = []
    total = 0
    for update in alike:
        if group and total + size(update) > most:
            yield group
            group, total = [], 0
        group.append(update)
        total += size(update)
    yield group
