"""Redirection of the uses of variables and updates to the stored variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...tf_internals import add_control_inputs, control_outputs, set_control_inputs, set_input
from ..placed_graph import Op, PlacedGraph, Tensor
from .rules import CONDITIONALS, READS
from .variable import FlatVariable, Part


def hand_over_order(ops: set[Op], applies: dict[Op, Op]) -> None:
    """Moves the control edges of replaced ops to the ops that replace them.

    The replaced ops stay in the graph, but no step needs them any longer. Without these edges a
    step could end, or read parameters, before the joint op has run.

    Args:
        ops: Ops whose control inputs are changed.
        applies: The new op for each replaced op. It waits for everything that the old ops waited
            for.
    """
    for old, new in applies.items():
        add_control_inputs(
            new,
            [
                op
                for op in dict.fromkeys(applies.get(op, op) for op in old.control_inputs)
                if op not in set(new.control_inputs)
            ],
        )
    waiting = {op for old in applies for op in control_outputs(old) if op in ops}
    for op in waiting:
        others = list(dict.fromkeys(applies.get(other, other) for other in op.control_inputs))
        set_control_inputs(op, others)


def redirect(
    placed: PlacedGraph, in_step: set[Op], op: Op, variable: FlatVariable, part: Part
) -> None:
    """Redirects an op that uses a logical variable to the stored one.

    The logical variable's handle never gets a value, so each op that takes it has to be redirected.

    Args:
        placed: The graph.
        in_step: The ops of the training steps.
        op: The op that uses the variable.
        variable: The stored variable.
        part: The part of the stored variable that is the logical one.
    """
    after = op.control_inputs
    if op.type == "VarIsInitializedOp":
        set_input(op, 0, variable.flag(part))
    elif op.type == "DisableCopyOnRead":
        set_input(op, 0, variable.to_be_saved(part))
    elif op.type == "AssignVariableOp":
        written = variable.write(part, op.inputs[1], after)
        set_input(op, 0, variable.nowhere(part))
        add_control_inputs(op, [written])
    elif op.type in READS:
        if op.type == "ReadVariableOp" and op in in_step:
            _redirect_uses(placed, in_step, op.outputs[0], variable, part, after)
        # The op itself keeps its type and name: it can be fetched, and ops outside of the step may
        # use it. Inside the step its users were redirected, so it runs only if it is asked for.
        handle, ready = variable.stand_in(part, after)
        set_input(op, 0, handle)
        add_control_inputs(op, [ready])
    elif op.type in CONDITIONALS:
        # Such as `initialized_value()`, which reads only initialized variables.
        handle, ready = variable.stand_in_if_set(part, after)
        for index, tensor in enumerate(op.inputs):
            if tensor is part.handle.outputs[0]:
                set_input(op, index, handle)
        add_control_inputs(op, [ready])
    else:
        raise AssertionError(f"{op.name!r} ({op.type}) uses {part.handle.name!r}")


def _redirect_uses(
    placed: PlacedGraph,
    in_step: set[Op],
    tensor: Tensor,
    variable: FlatVariable,
    part: Part,
    after: Sequence[Any],
) -> None:
    for op in dict.fromkeys(tensor.consumers()):
        if op in in_step:
            value = variable.value(part, after, placed.device(placed.task(op)))
            for index, each in enumerate(op.inputs):
                if each is tensor:
                    set_input(op, index, value)
