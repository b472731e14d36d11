"""The functions of a model with tables, in PyTorch; `tf_ops` has the same names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch


class TorchOps:
    """Works with tensors that require gradients."""

    @staticmethod
    def columns(ids: Any) -> Any:
        """Converts int [features, batch] to a list of [batch]."""
        return torch.unbind(ids)

    @staticmethod
    def look_up(table: Any, ids: Any) -> Any:
        """Looks up rows [batch, dim] of a table [rows, dim]; its gradient has these rows alone."""
        return torch.nn.functional.embedding(ids, table, sparse=True)

    @staticmethod
    def concat(parts: Sequence[Any]) -> Any:
        """Joins [batch, n] side by side."""
        return torch.cat(list(parts), 1)

    @staticmethod
    def dense(variables: Mapping[str, Any], prefix: str, layers: int, x: Any) -> Any:
        """Layers with ReLU between them."""
        for index in range(layers):
            if index:
                x = torch.relu(x)
            x = x @ variables[f"{prefix}_kernel_{index}"] + variables[f"{prefix}_bias_{index}"]
        return x

    @staticmethod
    def dot_products(vectors: Sequence[Any]) -> Any:
        """Computes from n of [batch, dim] the products of all pairs, [batch, n * (n - 1) / 2]."""
        stacked = torch.stack(list(vectors), 1)
        products = torch.bmm(stacked, stacked.transpose(1, 2))
        n = len(vectors)
        pairs = [i * n + j for j, i in combinations(range(n), 2)]
        return products.reshape(-1, n * n)[:, pairs]

    @staticmethod
    def click_loss(logits: Any, labels: Any) -> Any:
        """Computes the mean cross entropy."""
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)


class _HalfSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Any) -> Any:
        ctx.save_for_backward(values)
        return values.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (values,) = ctx.saved_tensors
        return values * gradients[0]


def half_square(values: Any) -> Any:
    """Makes a scalar whose gradient is the input, as that of TensorFlow's `l2_loss`.

    Its value is 0: TensorFlow does not compute an unused value either.
    """
    return _HalfSquare.apply(values)
