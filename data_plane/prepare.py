"""`prepare`: the passes over a graph, just before a session is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from .coalescing import coalesce
from .flat.storage import flatten
from .flat.tables import fuse_tables
from .graph_collections import runnable
from .lossy.passes import apply_lossy_passes
from .lossy.stale_pull import read_ahead
from .options import BUCKET_BYTES, DataPlane
from .sparse.deduplication import deduplicate

v1 = tf.compat.v1


def prepare(graph: tf.Graph, options: DataPlane, train_ops: Sequence[Any] = ()) -> None:
    """Makes few transfers of what the training steps of a graph send between tasks.

    Args:
        graph: The graph, changed in place; it may be finalized. Sessions that exist keep to what
            they have run already.
        options: What to do.
        train_ops: What trains: ops, tensors, their names, or any structure of these. What is in the
            collection `TRAIN_OP`, where every optimizer of TensorFlow's registers, is added, but
            for what is in a branch or a loop.
    """
    roots = _find_ops(graph, [*train_ops, *runnable(graph, v1.GraphKeys.TRAIN_OP)])
    if not roots:
        return
    with _unfinalized(graph):
        if options.storage == "flat":
            flatten(graph, roots, options.transfer_bucket_bytes or BUCKET_BYTES)
            fuse_tables(graph, roots)
        if options.transfer_bucket_bytes:
            deduplicate(graph, roots, _initializers(graph))
        roots += apply_lossy_passes(graph, options, roots, _initializers(graph))
        if options.transfer_bucket_bytes:
            coalesce(graph, roots, _initializers(graph), options.transfer_bucket_bytes)
        if options.stale_pull:
            read_ahead(graph, roots, _initializers(graph))


def _find_ops(graph: tf.Graph, fetches: Sequence[Any]) -> list[Any]:
    found = []
    for each in tf.nest.flatten(fetches, expand_composites=True):
        if isinstance(each, (str, tf.Tensor, tf.Operation, tf.Variable)):
            found.append(_op_of(graph.as_graph_element(each)))
    return found


def _op_of(element: Any) -> Any:
    return getattr(element, "op", element)


def _initializers(graph: tf.Graph) -> Iterable[Any]:
    keys = v1.GraphKeys
    variables = (
        *graph.get_collection(keys.GLOBAL_VARIABLES),
        *graph.get_collection(keys.LOCAL_VARIABLES),
    )
    return [
        # That of a warm-started variable is a variable as it is after an assignment.
        *(_op_of(variable.initializer) for variable in variables),
        *map(_op_of, runnable(graph, keys.TABLE_INITIALIZERS)),
    ]


class _unfinalized:
    """A graph that may be added to for a while."""

    def __init__(self, graph: tf.Graph) -> None:
        self._graph = graph
        self._was_final = graph.finalized

    def __enter__(self) -> None:
        if self._was_final:
            self._graph._unsafe_unfinalize()

    def __exit__(self, *_: object) -> None:
        if self._was_final:
            self._graph.finalize()
