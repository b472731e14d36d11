"""`sdca_shrink_l1`: also for resource variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

_REF_OPS = frozenset({"Variable", "VariableV2"})


def sdca_shrink_l1(weights: Sequence[Any], l1: float, l2: float, name: str | None = None) -> Any:
    """Moves weights towards 0 by `l1 / l2`, and no further: `w = sign(w) * max(|w| - l1 / l2, 0)`.

    The last part of an iteration of stochastic dual coordinate ascent (Shalev-Shwartz and Zhang,
    "Accelerated Proximal Stochastic Dual Coordinate Ascent for Regularized Loss Minimization").
    TensorFlow's op takes ref variables only.

    Args:
        weights: Variables of type float32.
        l1: Strength of the L1 regularization.
        l2: Strength of the L2 regularization, more than 0.
        name: Name of the op.

    Returns:
        The op.
    """
    refs = [weight for weight in weights if weight.op.type in _REF_OPS]
    updates = [
        weight.assign(shrink(weight.read_value(), l1 / l2))
        for weight in weights
        if weight.op.type not in _REF_OPS
    ]
    if refs:
        updates.append(tf.compat.v1.train.sdca_shrink_l1(refs, l1=l1, l2=l2))
    return tf.group(updates, name=name)


def shrink(values: Any, amount: float) -> Any:
    """Moves a tensor's values towards 0 by `amount`, and no further."""
    return tf.sign(values) * tf.maximum(tf.abs(values) - amount, 0.0)
