"""Keras 3 models in a graph: repeatable names, trainable variables, and updates of state."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from ..data_plane.placed_graph import ancestors
from ..errors import UsageError

# Every op by which a resource variable can be written outside an optimizer's apply.
_WRITES = ("Assign", "ResourceScatter")
# The op with which a `Saver` reads a checkpoint; it assigns variables only in `restore`.
_RESTORES = ("Restore", "RestoreSlice", "RestoreV2")


def reset_names() -> None:
    """Resets Keras's counters, so that it names the layers of the next graph as in the last one.

    Names count up during a process's life, and a seed generator's name cannot be chosen. Without a
    reset, the same model built for training and for evaluation would have variables of two names.
    Call it outside of any graph's context.
    """
    policy = keras.config.dtype_policy()  # Would be dropped silently.
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy(policy)


def trainable_values(model: keras.Model) -> list[tf.Variable]:
    """Returns TensorFlow's variables behind a model's trainable weights; see `layer.trainable`."""
    return [variable.value for variable in model.trainable_variables]


def collect_updates(model: keras.Model) -> list[tf.Operation]:
    """Returns the assign ops by which calls of `model` update its state (averages, random seeds).

    Keras writes state with `variable.assign(...)`. In a graph that only makes an op, which nothing
    runs: moving averages then stay at their initial values, and dropout drops the same units in
    every step. Run the ops returned here in the same `Session.run` as the training op.

    An op is a state update if all of this is true:
      1. it writes one of `model.variables` (these include the layers' seed generators), or the
         state of another seed generator (`keras.random.normal(...)` without a seed uses one that
         belongs to no model);
      2. it initializes no variable: neither as `variable.initializer`, nor as the first
         initializer, which `init_from_checkpoint` leaves behind when it puts in its own;
      3. its value depends on a variable or on the input. `set_weights` and `load_weights`
           assign constants, and a saver restores: run with every step they would undo the training.

    Args:
      model: a built model, called in the current graph.

    Returns:
      The update ops, in the order in which they were made. Empty for a model without such state.

    Raises:
      UsageError: The model's variables are not in this graph (made eagerly or elsewhere). Or an
          update lies inside a control-flow block, from where nothing can run it.
    """
    graph = tf.compat.v1.get_default_graph()
    handles = _state_handles(model, graph)
    initializers = set(_initializers(graph))
    updates = []
    for op in graph.get_operations():
        if op in initializers or not _is_write(op):
            continue
        handle = _source(op.inputs[0]).op
        value = op.inputs[1:]
        if handle not in handles or _is_restored(value) or not _depends_on_state_or_input(value):
            continue
        if not graph.is_fetchable(op):
            raise UsageError(
                f"{op.name!r} updates {handle.name!r} inside a conditional or a loop, from where "
                "it cannot run with the step; call the model outside of it"
            )
        updates.append(op)
    _reject_hidden_updates(graph, handles)
    return updates


def constant_writes(model: keras.Model) -> list[tf.Operation]:
    """Writes to `model.variables` that `collect_updates` leaves out by rule 3: set_weights & co.

    Nothing will ever run them. Worth an error: "initialize from a checkpoint instead".
    """
    graph = tf.compat.v1.get_default_graph()
    handles = _state_handles(model, graph)
    initializers = set(_initializers(graph))
    return [
        op
        for op in graph.get_operations()
        if op not in initializers
        and _is_write(op)
        and _source(op.inputs[0]).op in handles
        and not _is_restored(op.inputs[1:])
        and not _depends_on_state_or_input(op.inputs[1:])
    ]


def _state_handles(model: keras.Model, graph: tf.Graph) -> set[tf.Operation]:
    handles = set()
    for variable in model.variables:
        handle: Any = getattr(variable.value, "handle", None)
        if getattr(handle, "graph", None) is not graph:
            raise UsageError(
                f"the variable {variable.path!r} of the Keras model {model.name!r} is not in the "
                "graph being built; make the model inside build(), not at import"
            )
        handles.add(handle.op)
    for variable in graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES):
        # The name that Keras gives to the state of every keras.random.SeedGenerator.
        if variable.op.name.split("/")[-1] == "seed_generator_state":
            handles.add(variable.handle.op)
    return handles


# The branches and bodies of these are functions, named in attributes; a conditional's first input
# is the condition, and the rest are the arguments of the branches.
_CONTROL_FLOW = {"If": 1, "StatelessIf": 1, "Case": 1, "While": 0, "StatelessWhile": 0}


def _reject_hidden_updates(graph: tf.Graph, handles: Collection[tf.Operation]) -> None:
    """Raises if a branch or loop body writes a handle: in a v1 graph TensorFlow prunes it."""
    calls = [op for op in graph.get_operations() if op.type in _CONTROL_FLOW]
    if not calls:
        return
    library = {f.signature.name: f for f in graph.as_graph_def().library.function}
    for op in calls:
        arguments = op.inputs[_CONTROL_FLOW[op.type] :]
        states = {i for i, t in enumerate(arguments) if _source(t).op in handles}
        written = _written(library, _functions(op.node_def), states)
        if written:
            raise UsageError(
                f"{op.name!r}, a conditional or a loop, updates "
                f"{arguments[min(written)].op.name!r} inside, from where it cannot run with the "
                "step; call the model outside of it"
            )


def _functions(node: Any) -> list[str]:
    names = []
    for value in node.attr.values():
        names += [value.func.name] if value.HasField("func") else []
        names += [f.name for f in value.list.func]
    return names


def _written(library: Mapping[str, Any], names: Collection[str], states: set[int]) -> set[int]:
    """Returns the positions among `states` whose arguments the functions `names` write."""
    written: set[int] = set()
    for name in names if states else ():
        function = library[name]
        position = {arg.name: i for i, arg in enumerate(function.signature.input_arg)}
        for node in function.node_def:
            # An argument of the function appears under its bare name.
            inner = [position.get(name.split(":")[0], -1) for name in node.input]
            if node.op.startswith(_WRITES):
                written |= {inner[0]} & states
            elif node.op in _CONTROL_FLOW:
                inner = inner[_CONTROL_FLOW[node.op] :]
                deeper = {i for i, outer in enumerate(inner) if outer in states}
                written |= {inner[i] for i in _written(library, _functions(node), deeper)}
    return written


def _is_write(op: tf.Operation) -> bool:
    return op.type.startswith(_WRITES) and bool(op.inputs) and op.inputs[0].dtype == tf.resource


def _initializers(graph: tf.Graph) -> Iterator[tf.Operation]:
    keys = (tf.compat.v1.GraphKeys.GLOBAL_VARIABLES, tf.compat.v1.GraphKeys.LOCAL_VARIABLES)
    for variable in {id(v): v for key in keys for v in graph.get_collection(key)}.values():
        initializer = getattr(variable, "initializer", None)
        if initializer is not None:
            # A tensor for a reference variable, an operation for a resource variable.
            yield getattr(initializer, "op", initializer)
    # TensorFlow names a resource variable's first initializer after its handle.
    for op in graph.get_operations():
        if op.type == "AssignVariableOp" and op.name == f"{op.inputs[0].op.name}/Assign":
            yield op


def _source(tensor: tf.Tensor) -> tf.Tensor:
    """Follows a resource handle back through identities and control-flow switches."""
    while tensor.op.type in ("Identity", "Switch", "Enter", "RefEnter"):
        tensor = tensor.op.inputs[0]
    return tensor


def _is_restored(tensors: Collection[tf.Tensor]) -> bool:
    return any(op.type in _RESTORES for op in _ancestors(tensors))


def _depends_on_state_or_input(tensors: Collection[tf.Tensor]) -> bool:
    # Variables, iterators, tables and queues are all resources; placeholders are fed.
    return any(
        op.type.startswith("Placeholder") or any(each.dtype == tf.resource for each in op.inputs)
        for op in _ancestors(tensors)
    )


def _ancestors(tensors: Collection[tf.Tensor]) -> Iterator[tf.Operation]:
    return ancestors((tensor.op for tensor in tensors), with_control=False)
