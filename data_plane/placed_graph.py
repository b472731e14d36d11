"""A graph with the task of each op, and the tensors that cross between tasks.

Tasks are found without running anything, by the rules of TensorFlow's placer. An op that takes a
variable's handle runs on the variable's task, and a colocated op with its companion. Other ops run
on the task of their device. Ops without a task run on the task whose session runs the graph.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from ..tf_internals import control_flow_context

Op = Any
Tensor = Any
# Job and task as a device string, such as "/job:ps/task:0".
TaskDevice = str
# The task whose session runs the graph, whatever its name in the graph. One value for it makes ops
# with and without an explicit device on that task compare equal.
HOME: TaskDevice = ""

_COLOCATED = b"loc:@"
_CALLS = frozenset(
    {
        "If",
        "StatelessIf",
        "Case",
        "StatelessCase",
        "While",
        "StatelessWhile",
        "PartitionedCall",
        "StatefulPartitionedCall",
    }
)
_SWITCHES = frozenset({"Switch", "RefSwitch"})
_ENDS_OF_CONTROL_FLOW = frozenset({"Merge", "RefMerge", "Exit", "RefExit"})
_HOME_KEY = "paramserve/home"


@dataclass(frozen=True, eq=False)
class Crossing:
    """A tensor that one task makes and another one takes.

    Attributes:
        tensor: The tensor that crosses.
        source: The task that makes it.
        target: The task that takes it.
        uses: The ops on `target` that take it, with the index of the input.
        stage: The largest number of crossings on a path from the graph's inputs to this one. It is
            the latest stage that the uses allow. Crossings of one stage never wait for each other.
        roots: The roots that need the uses, as a bit mask.
    """

    tensor: Tensor
    source: TaskDevice
    target: TaskDevice
    uses: tuple[tuple[Op, int], ...]
    stage: int
    roots: int


class PlacedGraph:
    """The ops that a graph's training steps run, with their tasks and crossings.

    Each answer is computed once, when it is first needed. So after a pass has changed the graph,
    the next pass makes a new `PlacedGraph`.

    Args:
        graph: A `tf.Graph`.
        roots: Ops that are run, each by itself or together: the training steps.
    """

    def __init__(self, graph: tf.Graph, roots: Sequence[Op]) -> None:
        self._tasks: dict[Op, TaskDevice] = {}
        self._by_name = {op.name: op for op in graph.get_operations()}
        self._home = _find_home(graph, self._by_name.values())
        self._roots = list(dict.fromkeys(roots))
        self._loops = _Loops(self._by_name.values())
        self.index = {op: index for index, op in enumerate(self._by_name.values())}

    def task(self, op: Op) -> TaskDevice:
        """Returns the task on which an op runs."""
        found = self._tasks.get(op)
        if found is None:
            found = self._tasks[op] = self._find_task(op)
        return found

    def device(self, task: TaskDevice) -> str:
        """Returns the device string of a task; "" if it has none in the graph."""
        return self._home if task == HOME else task

    def in_control_flow(self, op: Op) -> bool:
        """Returns whether an op is in a loop or a condition of the old kind.

        Such an op may be run several times in a step, or not at all.
        """
        return op in self._after_switches or control_flow_context(op) is not None

    def needed_by(self, roots: Iterable[Op]) -> set[Op]:
        """Returns the ops that `roots` need, themselves included."""
        return {op for unit in self._in_order(roots) for op in self._loops.members(unit)}

    @cached_property
    def ops(self) -> list[Op]:
        """The ops that the roots need, in topological order, each loop in one piece."""
        return [op for unit in self._units for op in self._loops.members(unit)]

    @cached_property
    def roots_of(self) -> dict[Op, int]:
        """The roots that need each op, as a bit mask in the order of the roots."""
        masks: dict[Any, int] = defaultdict(int)
        for bit, root in enumerate(self._roots):
            masks[self._loops.unit(root)] |= 1 << bit
        # In reverse topological order a unit's mask is complete before it is passed on.
        for unit in reversed(self._units):
            for op in self._loops.members(unit):
                for needed in needs(op):
                    masks[self._loops.unit(needed)] |= masks[unit]
        return {op: masks[self._loops.unit(op)] for op in self.ops}

    @cached_property
    def stages(self) -> dict[Op, int]:
        """The largest number of crossings on a path from the graph's inputs to each op."""
        stages: dict[Any, int] = {}
        for unit in self._units:
            stages[unit] = max(
                (
                    stages[other] + (self.task(needed) != self.task(op))
                    for op in self._loops.members(unit)
                    for needed in needs(op)
                    if (other := self._loops.unit(needed)) is not unit
                ),
                default=0,
            )
        return {op: stages[self._loops.unit(op)] for op in self.ops}

    def crossings(self) -> list[Crossing]:
        """Returns the tensors that cross between tasks on the way to the roots."""
        uses: dict[tuple[Any, TaskDevice, int], list[tuple[Op, int]]] = defaultdict(list)
        tensors: dict[Any, Tensor] = {}
        for op in self.ops:
            here = self.task(op)
            for index, tensor in enumerate(op.inputs):
                if self.task(tensor.op) != here:
                    tensors[tensor.ref()] = tensor
                    uses[tensor.ref(), here, self.roots_of[op]].append((op, index))
        return [
            Crossing(
                tensor=tensors[ref],
                source=self.task(tensors[ref].op),
                target=target,
                uses=tuple(found),
                # An op's stage counts its own crossings, so it is above those of all its inputs.
                # Ops that take tensors of stage s have stage s + 1 or more, so no tensor of stage s
                # depends on them: joined tensors of one stage cannot form a cycle.
                stage=min(self.stages[op] for op, _ in found) - 1,
                roots=roots,
            )
            for (ref, target, roots), found in uses.items()
        ]

    @cached_property
    def _units(self) -> list[Any]:
        return self._in_order(self._roots)

    @cached_property
    def _after_switches(self) -> set[Op]:
        """Ops that run only if a `Switch` is taken, with or without a control flow context.

        TensorFlow sets no context on ops that make the gradient of the branch that is not taken.
        """
        found: set[Op] = set()
        for op in self.ops:
            if op.type in _SWITCHES or any(
                needed in found and needed.type not in _ENDS_OF_CONTROL_FLOW for needed in needs(op)
            ):
                found.add(op)
        return found

    def _in_order(self, roots: Iterable[Op]) -> list[Any]:
        """Returns the ops and loops that `roots` need, in topological order."""
        # Depth first with an explicit stack: graphs may be deeper than Python's recursion limit.
        done: dict[Any, None] = {}
        for root in map(self._loops.unit, roots):
            if root in done:
                continue
            stack = [(root, self._needs_of_unit(root))]
            while stack:
                unit, rest = stack[-1]
                following = next((other for other in rest if other not in done), None)
                if following is None:
                    done[unit] = None
                    stack.pop()
                else:
                    stack.append((following, self._needs_of_unit(following)))
        return list(done)

    def _needs_of_unit(self, unit: Any) -> Iterator[Any]:
        for op in self._loops.members(unit):
            for needed in needs(op):
                other = self._loops.unit(needed)
                if other is not unit:
                    yield other

    def _find_task(self, op: Op) -> TaskDevice:
        for tensor in op.inputs:
            if _has_to_be_next_to(tensor, op):
                return self.task(tensor.op)
        explicit = _task_of_device(op.device)
        if explicit == HOME:
            companion = self._companion(op)
            explicit = HOME if companion is None else self.task(companion)
        return HOME if explicit == self._home else explicit

    def _companion(self, op: Op) -> Op | None:
        """Returns the other op with which an op is colocated; None if there is none."""
        if "_class" not in op.node_def.attr:
            return None
        for label in op.node_def.attr["_class"].list.s:
            if label.startswith(_COLOCATED):
                companion = self._by_name.get(label.removeprefix(_COLOCATED).decode())
                if companion is not op:
                    return companion
        return None


class _Loops:
    """The while loops of control flow v1, whose ops form cycles.

    Such a loop is one unit: ops after it need all of it. So the graph of units is acyclic, and
    topological order exists.
    """

    def __init__(self, ops: Iterable[Op]) -> None:
        self._members: dict[Any, list[Op]] = defaultdict(list)
        self._loop_of: dict[Op, Any] = {}
        for op in ops:
            loop = _outermost_loop(op)
            if loop is not None:
                self._loop_of[op] = loop
                self._members[loop].append(op)

    def unit(self, op: Op) -> Any:
        return self._loop_of.get(op, op)

    def members(self, unit: Any) -> Sequence[Op]:
        return self._members.get(unit) or (unit,)


def is_reference(dtype: tf.DType) -> bool:
    """Returns whether a dtype is that of ref variables, which ops take by reference."""
    return bool(dtype != dtype.base_dtype)


def _has_to_be_next_to(tensor: Tensor, op: Op) -> bool:
    """Returns whether an op has to run on the task of a variable that it takes."""
    if is_reference(tensor.dtype):
        # An op that takes only the value may run elsewhere.
        return any(argument.is_ref for argument in op.op_def.input_arg)
    # The ops of a function are placed one by one.
    return bool(tensor.dtype == tf.resource) and op.type not in _CALLS


def needs(op: Op) -> Iterator[Op]:
    """Yields the ops that have to run before `op`."""
    for tensor in op.inputs:
        yield tensor.op
    yield from op.control_inputs


def ancestors(ops: Iterable[Op], *, with_control: bool = True) -> Iterator[Op]:
    """Yields ops and those they need, each once; without control inputs, those of their values."""
    seen, waiting = set(), list(ops)
    while waiting:
        op = waiting.pop()
        if op not in seen:
            seen.add(op)
            yield op
            waiting += needs(op) if with_control else (tensor.op for tensor in op.inputs)


def _outermost_loop(op: Op) -> Any:
    context, loop = control_flow_context(op), None
    while context is not None:
        if context.IsWhileContext():
            loop = context
        context = context.outer_context
    return loop


def set_home(graph: tf.Graph, device: str) -> None:
    """Sets the task whose session runs a graph, for tasks that are parameter servers as well.

    Args:
        graph: The graph, which keeps the task in a collection.
        device: Device of the task, such as "/job:ps/task:1".
    """
    graph.get_collection_ref(_HOME_KEY)[:] = [_task_of_device(device)]


def _find_home(graph: tf.Graph, ops: Iterable[Op]) -> TaskDevice:
    """Returns the task that was set, or else the one with most ops that is no parameter server."""
    for said in graph.get_collection(_HOME_KEY):
        return str(said)
    counts = Counter(op.device for op in ops)
    tasks: Counter[TaskDevice] = Counter()
    for device, count in counts.items():
        task = _task_of_device(device)
        if not task.startswith("/job:ps"):
            tasks[task] += count
    tasks.pop(HOME, None)
    return max(tasks, key=tasks.__getitem__, default=HOME)


def _task_of_device(device: str) -> TaskDevice:
    spec = tf.DeviceSpec.from_string(device or "")
    return tf.DeviceSpec(job=spec.job, task=spec.task).to_string() if spec.job else HOME
