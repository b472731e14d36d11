"""Graphs to serve: with the products of masks and weights, and without both."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from . import masks

v1 = tf.compat.v1

_MASKED_WEIGHT = re.compile(r"(^|/)masked_weight(_\d+)?$")
_COLLECTIONS = (
    masks.MASK_COLLECTION,
    masks.THRESHOLD_COLLECTION,
    masks.MASKED_WEIGHT_COLLECTION,
    masks.WEIGHT_COLLECTION,
)


def strip_pruning_vars_fn(input_graph_def: Any, output_node_names: Sequence[str]) -> Any:
    """Puts constants in place of the products of masks and weights.

    Args:
      input_graph_def: A `GraphDef` whose variables are constants, such as
        `graph_def_from_checkpoint` returns.
      output_node_names: Nodes to keep, with their inputs.

    Returns:
      A `GraphDef` that computes the same, without masks, thresholds and raw weights.

    Raises:
      ValueError: A node of `output_node_names` is not in the graph.
    """
    missing = set(output_node_names) - {node.name for node in input_graph_def.node}
    if missing:
        raise ValueError(
            f"the graph has no node {', '.join(map(repr, sorted(missing)))}: give names of ops, "
            "such as 'logits', not of tensors"
        )
    needed = v1.graph_util.extract_sub_graph(input_graph_def, list(output_node_names))
    products = _evaluate_products(needed)
    stripped = v1.GraphDef(versions=needed.versions, library=needed.library)
    for node in needed.node:
        if node.name in products:
            stripped.node.append(_constant(node.name, products[node.name]))
        else:
            stripped.node.append(node)
    return v1.graph_util.extract_sub_graph(stripped, list(output_node_names))


def graph_def_from_checkpoint(checkpoint_dir: str, output_node_names: Sequence[str]) -> Any:
    """Loads the newest checkpoint's graph with its variables as constants.

    Args:
      checkpoint_dir: The directory of checkpoints, which have their `.meta` files.
      output_node_names: Nodes to keep, with their inputs.

    Returns:
      A `GraphDef` without devices.

    Raises:
      ValueError: There is no checkpoint, or it has no `.meta` file.
    """
    checkpoint = tf.train.latest_checkpoint(checkpoint_dir)
    if checkpoint is None:
        raise ValueError(f"no checkpoint was found in {os.fspath(checkpoint_dir)!r}")
    if not tf.io.gfile.exists(f"{checkpoint}.meta"):
        raise ValueError(
            f"{checkpoint!r} has no graph: {checkpoint}.meta is missing; save with write_meta_graph"
        )
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        saver = v1.train.import_meta_graph(_read_meta_graph(checkpoint), clear_devices=True)
        saver.restore(session, checkpoint)
        return v1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), list(output_node_names)
        )


def _read_meta_graph(checkpoint: str) -> Any:
    with tf.io.gfile.GFile(f"{checkpoint}.meta", "rb") as file:
        meta_graph = v1.MetaGraphDef.FromString(file.read())
    # TensorFlow writes a partitioned variable in these, but fails to read it.
    for key in _COLLECTIONS:
        meta_graph.collection_def.pop(key, None)
    return meta_graph


def _evaluate_products(graph_def: Any) -> dict[str, Any]:
    names = [node.name for node in graph_def.node if node.op != "Const" and _is_product(node.name)]
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(graph_def, name="")
        values = session.run([f"{name}:0" for name in names])
    return dict(zip(names, values, strict=True))


def _is_product(name: str) -> bool:
    return _MASKED_WEIGHT.search(name) is not None


def _constant(name: str, value: Any) -> Any:
    node = v1.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return node
