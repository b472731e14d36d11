"""A graph as the cluster sees it: which task each op runs on, and which edges cross between tasks.

The tasks are found without running anything, by the rules of TensorFlow's placer: an op that takes
a variable's handle lies where the variable is, a colocated one with its companion, others where
their device says. Ops without a task lie on the task whose session runs the graph.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

Op = Any
Tensor = Any
# Job and task as a device string, such as "/job:ps/task:0".
TaskDevice = str
# The task whose session runs the graph, however the graph calls it.
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
        tensor: What crosses.
        source: The task that makes it.
        target: The task that takes it.
        uses: The ops on `target` that take it, with the index of the input.
        stage: How many crossings lie, at most, on a way from the graph's beginning to this one. It
            is the latest that the uses allow. Crossings of one stage never wait for each other.
        roots: For which of the graph's roots the uses are needed, as a bit mask.
    """

    tensor: Tensor
    source: TaskDevice
    target: TaskDevice
    uses: tuple[tuple[Op, int], ...]
    stage: int
    roots: int


class PlacedGraph:
    """What a graph's training steps run, and where.

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
        return op in self._after_switches or op._get_control_flow_context() is not None

    def needed_by(self, roots: Iterable[Op]) -> set[Op]:
        """Returns the ops that `roots` need, themselves included."""
        return {op for unit in self._in_order(roots) for op in self._loops.members(unit)}

    @cached_property
    def ops(self) -> list[Op]:
        """The ops that the roots need, each after those it needs itself, loops in one piece."""
        return [op for unit in self._units for op in self._loops.members(unit)]

    @cached_property
    def roots_of(self) -> dict[Op, int]:
        """For which roots an op is needed, as a bit mask in the order of the roots."""
        masks: dict[Any, int] = defaultdict(int)
        for bit, root in enumerate(self._roots):
            masks[self._loops.unit(root)] |= 1 << bit
        for unit in reversed(self._units):
            for op in self._loops.members(unit):
                for needed in needs(op):
                    masks[self._loops.unit(needed)] |= masks[unit]
        return {op: masks[self._loops.unit(op)] for op in self.ops}

    @cached_property
    def stages(self) -> dict[Op, int]:
        """How many crossings lie, at most, on a way from the graph's beginning to an op."""
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
        """Ops that only run when a `Switch` lets them, whether or not a context says so.

        TensorFlow notes no context for what makes the gradient of the branch that is not taken.
        """
        found: set[Op] = set()
        for op in self.ops:
            if op.type in _SWITCHES or any(
                needed in found and needed.type not in _ENDS_OF_CONTROL_FLOW for needed in needs(op)
            ):
                found.add(op)
        return found

    def _in_order(self, roots: Iterable[Op]) -> list[Any]:
        """Ops and loops that `roots` need, each after those that it needs itself."""
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
        """The op with which another one is colocated, if that is not the op itself."""
        if "_class" not in op.node_def.attr:
            return None
        for label in op.node_def.attr["_class"].list.s:
            if label.startswith(_COLOCATED):
                companion = self._by_name.get(label.removeprefix(_COLOCATED).decode())
                if companion is not op:
                    return companion
        return None


class _Loops:
    """Which ops form a loop of the old kind, whose graph has a cycle.

    Such a loop is one unit: what comes after it needs all of it.
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


def _has_to_be_next_to(tensor: Tensor, op: Op) -> bool:
    """Whether an op runs on the task of a variable that it takes."""
    if tensor.dtype._is_ref_dtype:
        # One that only takes the value may run elsewhere.
        return any(argument.is_ref for argument in op.op_def.input_arg)
    # The ops of a function run each on their own task.
    return bool(tensor.dtype == tf.resource) and op.type not in _CALLS


def needs(op: Op) -> Iterator[Op]:
    """The ops that have to run before `op`."""
    for tensor in op.inputs:
        yield tensor.op
    yield from op.control_inputs


def _outermost_loop(op: Op) -> Any:
    context, loop = op._get_control_flow_context(), None
    while context is not None:
        if context.IsWhileContext():
            loop = context
        context = context.outer_context
    return loop


def set_home(graph: tf.Graph, device: str) -> None:
    """Says which task's session runs a graph; needed where that task is a parameter server too.

    Args:
        graph: The graph. It is kept there as a collection.
        device: Device of the task, such as "/job:ps/task:1".
    """
    graph.get_collection_ref(_HOME_KEY)[:] = [_task_of_device(device)]


def _find_home(graph: tf.Graph, ops: Iterable[Op]) -> TaskDevice:
    """What was said, else the task of most ops by their own device, parameter servers aside."""
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
