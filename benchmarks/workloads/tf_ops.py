"""The functions of a model with tables, in TensorFlow; `torch_ops` has the same names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import tensorflow as tf


class TfOps:
    """Works in a graph and in a `tf.function`."""

    @staticmethod
    def columns(ids: Any) -> Any:
        """Converts int32 [features, batch] to a list of [batch]."""
        return tf.unstack(ids)

    @staticmethod
    def look_up(table: Any, ids: Any) -> Any:
        """Looks up rows [batch, dim] of a table [rows, dim]; its gradient has these rows alone."""
        return tf.nn.embedding_lookup(table, ids)

    @staticmethod
    def concat(parts: Sequence[Any]) -> Any:
        """Joins [batch, n] side by side."""
        return tf.concat(parts, 1)

    @staticmethod
    def dense(variables: Mapping[str, Any], prefix: str, layers: int, x: Any) -> Any:
        """Layers with ReLU between them."""
        for index in range(layers):
            if index:
                x = tf.nn.relu(x)
            x = tf.matmul(x, variables[f"{prefix}_kernel_{index}"])
            x = x + variables[f"{prefix}_bias_{index}"]
        return x

    @staticmethod
    def dot_products(vectors: Sequence[Any]) -> Any:
        """Computes from n of [batch, dim] the products of all pairs, [batch, n * (n - 1) / 2]."""
        stacked = tf.stack(vectors, 1)
        products = tf.matmul(stacked, stacked, transpose_b=True)
        n = len(vectors)
        pairs = [i * n + j for j, i in combinations(range(n), 2)]
        return tf.gather(tf.reshape(products, [-1, n * n]), pairs, axis=1)

    @staticmethod
    def click_loss(logits: Any, labels: Any) -> Any:
        """Computes the mean cross entropy."""
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
        return tf.reduce_mean(losses)
