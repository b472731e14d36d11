"""The only uses of TensorFlow's and Keras's unpublished names in this package.

A new release may change any of them without notice. Each function tells why no public name serves.
`tests/test_tf_internals.py` keeps such names out of all other modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Thread
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client.session import _FetchHandler
from tensorflow.python.client.timeline import Timeline
from tensorflow.python.ops.variables import PartitionedVariable
from tensorflow.python.training.device_setter import STANDARD_PS_OPS
from tensorflow.python.training.saving.saveable_object import SaveableObject, SaveSpec
from tensorflow.python.training.saving.saveable_object_util import op_list_to_dict
from tensorflow.python.training.slot_creator import create_slot

# Classes and functions that TensorFlow documents, or returns, without a public name.
__all__ = [
    "STANDARD_PS_OPS",
    "PartitionedVariable",
    "SaveSpec",
    "SaveableObject",
    "Timeline",
    "create_slot",
]

v1 = tf.compat.v1

# Graphs: TensorFlow publishes how a graph grows, but not how it is changed.


def set_input(op: Any, index: int, tensor: Any) -> None:
    """Replaces the input `index` of an op by another tensor."""
    op._update_input(index, tensor)


def add_control_inputs(op: Any, others: Iterable[Any]) -> None:
    """Makes an op wait for other ops, which may have been made after it."""
    op._add_control_inputs(list(others))


def set_control_inputs(op: Any, others: Iterable[Any]) -> None:
    """Makes an op wait for these ops, and for no others except its inputs."""
    op._remove_all_control_inputs()
    op._add_control_inputs(list(others))


def control_outputs(op: Any) -> Sequence[Any]:
    """Returns the ops that wait for an op; only `control_inputs` is public."""
    outputs: Sequence[Any] = op._control_outputs
    return outputs


def control_flow_context(op: Any) -> Any:
    """Returns the innermost loop or condition of the old kind around an op, or None."""
    return op._get_control_flow_context()


def move_op(op: Any, device: str) -> None:
    """Places an op that was placed before, and detaches it from the ops it is colocated with."""
    if "_class" in op.node_def.attr:
        op._clear_attr("_class")
    op._set_device(device)


def unfinalize(graph: tf.Graph) -> None:
    """Opens a finalized graph again; sessions that end do the same, with the same method."""
    graph._unsafe_unfinalize()


def functions_of(graph: tf.Graph) -> Mapping[str, Any]:
    """Returns the functions of a graph by name; its public `library` has none of their traces."""
    functions: Mapping[str, Any] = graph._functions
    return functions


def original_op(op: Any) -> Any:
    """Returns the op whose gradient an op belongs to, or None."""
    return op._original_op


# Sessions


def make_registered_run(session: Any, fetches: Any) -> Callable[[], Any]:
    """Makes a run that is registered with all servers before its first use.

    So its first step is as fast as the others. With the public `Session.make_callable`, servers get
    their parts with the first step, which takes several times as long.

    Args:
        session: A `tf.compat.v1.Session`.
        fetches: The fetches of the session's `run`.

    Returns:
        A function that makes the run, and returns the result of the session's `run`.

    Raises:
        tf.errors.OpError: A server is gone.
    """
    handler = _FetchHandler(session.graph, fetches, {})
    options = config_pb2.CallableOptions(
        fetch=[tensor.name for tensor in handler.fetches()],
        target=[op.name for op in handler.targets()],
    )
    run = session._make_callable_from_options(options)
    return lambda: handler.build_results(session, run())


def raw_session(session: Any) -> Any:
    """Returns the session under a monitored one, which changes with each recovery.

    A public step function gets it as well, but runs as a step, with the hooks.
    """
    return session._tf_sess() if hasattr(session, "_tf_sess") else session


def registered_threads(coordinator: Any) -> set[Thread]:
    """Returns the threads that a coordinator waits for; it only publishes waiting for all."""
    threads: set[Thread] = coordinator._registered_threads
    return threads


def close_event_writers(most_open: int) -> None:
    """Closes the oldest writers of `FileWriterCache`, which publishes only closing them all."""
    cache = v1.summary.FileWriterCache
    with cache._lock:
        for oldest in list(cache._cache)[:-most_open]:
            cache._cache.pop(oldest).close()


# Variables and savers


def set_initializer(variable: Any, initializer: Any) -> None:
    """Gives a variable another initializer op; a public initial value cannot be an existing op."""
    variable._initializer_op = initializer


def whole_variable(variable: Any) -> tuple[str, list[int]] | None:
    """Returns name and shape of the whole that a variable is a part of; None if it is no part."""
    part = getattr(variable, "_save_slice_info", None)
    return None if part is None else (part.full_name, list(part.full_shape))


def is_in_parts(value: Any) -> bool:
    """Tells a partitioned variable of any kind, as a saver does."""
    return isinstance(value, (list, tuple)) or hasattr(value, "_get_variable_list")


def given_variables(saver: Any) -> Any:
    """Returns a saver's own argument: a list, a dict by name, or None for all variables."""
    return saver._var_list


def names_in_checkpoints(values: Iterable[Any]) -> dict[str, Any]:
    """Names variables and saveables as a `tf.compat.v1.train.Saver` does."""
    named: dict[str, Any] = op_list_to_dict(list(values), convert_variable_to_tensor=False)
    return named


def next_kept_checkpoint(saver: Any) -> float:
    """Returns the Unix time in seconds from which a saver's next checkpoint is kept permanently."""
    time: float = saver._next_checkpoint_time
    return time


# `SyncReplicasOptimizer` publishes neither its counts nor the work of its queue runner.


def counted_step(optimizer: Any) -> Any:
    """Returns the global step that a `SyncReplicasOptimizer` raises; set by `apply_gradients`."""
    return optimizer._global_step


def tokens_per_step(optimizer: Any) -> int:
    """Returns how many tokens a `SyncReplicasOptimizer` issues for each global step."""
    tokens: int = optimizer._tokens_per_step
    return tokens


# Datasets


def change_iterated_datasets(change: Callable[[Any], Any]) -> None:
    """Changes each dataset before it is iterated over in a graph, from now on.

    Each way to iterate passes through one of two methods, of which one is public.
    """
    dataset, iterator = tf.data.Dataset, v1.data.Iterator
    finish: Callable[..., Any] = dataset._apply_debug_options
    make_initializer: Callable[..., Any] = iterator.make_initializer
    dataset._apply_debug_options = lambda each: finish(change(each))
    iterator.make_initializer = lambda self, each, name=None: make_initializer(
        self, change(each), name
    )


def known_options(dataset: Any) -> Any:
    """Returns `dataset.options()` without its warning, in a graph, that it may not be all."""
    return getattr(dataset, "_dataset", dataset)._options_attr


# Keras


def stored_value(variable: Any) -> Any:
    """Returns the store of a Keras variable; the public `value` may be cast by a dtype policy."""
    return variable._value


def with_sublayers(layer: Any) -> Iterator[Any]:
    """Yields a Keras layer and all below it; models list their layers in public, layers do not."""
    yield from layer._flatten_layers(include_self=True, recursive=True)
