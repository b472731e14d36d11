"""`prepare`: the pipeline of graph passes that runs just before a session is created."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from ..tf_internals import unfinalize
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
    """Rewrites a graph so that its training steps need few transfers between tasks.

    Args:
        graph: The graph, changed in place; it may be finalized. Existing sessions keep the ops that
            they have run already.
        options: The passes to apply.
        train_ops: Training ops: ops, tensors, their names, or any structure of these. Elements of
            the collection `TRAIN_OP`, where TensorFlow's optimizers register, are added, except
            those in a branch or a loop.
    """
    roots = _find_ops(graph, [*train_ops, *runnable(graph, v1.GraphKeys.TRAIN_OP)])
    if not roots:
        return
    # The order counts. Flat storage comes first, because the later passes treat its joint tensors
    # like any others. Rows are deduplicated, and lossy passes shrink tensors, before coalescing
    # packs the remaining ones. Reading ahead comes last, so that it keeps a few buckets in place of
    # many variables. Each pass analyses the graph with the ops of the earlier passes.
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
        # The initializer of a warm-started variable is the tensor of an assignment.
        *(_op_of(variable.initializer) for variable in variables),
        *map(_op_of, runnable(graph, keys.TABLE_INITIALIZERS)),
    ]


@contextmanager
def _unfinalized(graph: tf.Graph) -> Iterator[None]:
    """Opens a finalized graph to further ops meanwhile."""
    was_final = graph.finalized
    if was_final:
        unfinalize(graph)
    try:
        yield
    finally:
        if was_final:
            graph.finalize()
