"""Analysis of conditionals whose branches take a variable's handle as an argument."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import tensorflow as tf

from ..placed_graph import Op, Tensor

CONDITIONALS = frozenset({"If", "StatelessIf"})
_BRANCHES = ("then_branch", "else_branch")


class Conditionals:
    """The branches of a graph's conditionals.

    Args:
        graph: The graph, which is read at the first query.
    """

    def __init__(self, graph: tf.Graph) -> None:
        self._graph = graph

    def only_reads(self, op: Op, handle: Tensor) -> bool:
        """Returns whether a conditional uses a handle only to read the variable."""
        # The first input is the condition; the others are the arguments of both branches.
        places = [place - 1 for place, tensor in enumerate(op.inputs) if tensor is handle]
        functions = [self._functions[op.get_attr(branch).name] for branch in _BRANCHES]
        return all(_only_reads(function, place) for function in functions for place in places)

    @cached_property
    def _functions(self) -> dict[str, Any]:
        library = self._graph.as_graph_def().library.function
        return {function.signature.name: function for function in library}


def _only_reads(function: Any, place: int) -> bool:
    argument = function.signature.input_arg[place].name
    uses = [node.op for node in function.node_def if argument in node.input]
    return set(uses) <= {"ReadVariableOp"} and argument not in function.ret.values()
