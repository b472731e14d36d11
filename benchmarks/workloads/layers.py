"""Plain stacks of layers: many small ones, or few wide ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .workload import POOL_SIZE, Batches, VariableSpec, Workload

BATCH_SIZE = 32


def many_small(name: str, variables: int, width: int = 64) -> Workload:
    """Layers of `width` with a kernel and a bias each.

    Args:
        name: Of the workload.
        variables: Number of variables; an odd one leaves the last layer without a bias.
        width: Units of a layer.
    """
    specs = []
    for index in range((variables + 1) // 2):
        specs += [_kernel(f"kernel_{index}", width), VariableSpec(f"bias_{index}", (width,))]
    about = f"{variables} variables: layers of {width}x{width} and {width}, batch {BATCH_SIZE}"
    return _stack(name, about, tuple(specs[:variables]), width)


def wide(name: str, layers: int, width: int) -> Workload:
    """Makes few large kernels, without biases."""
    specs = tuple(_kernel(f"kernel_{index}", width) for index in range(layers))
    return _stack(name, f"{layers} layers of {width}x{width}, batch {BATCH_SIZE}", specs, width)


def _kernel(name: str, width: int) -> VariableSpec:
    # He's uniform initialization: activations keep their size through any number of ReLU layers.
    return VariableSpec(name, (width, width), scale=float((6 / width) ** 0.5))


def _stack(name: str, about: str, specs: tuple[VariableSpec, ...], width: int) -> Workload:
    def batches(random: np.random.Generator) -> Batches:
        shape = (POOL_SIZE, BATCH_SIZE, width)
        return {key: random.standard_normal(shape, np.float32) for key in ("x", "y")}

    def tf_loss(variables: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        import tensorflow as tf

        hidden = batch["x"]
        for spec in specs:
            if len(spec.shape) == 2:
                hidden = tf.matmul(tf.nn.relu(hidden), variables[spec.name])
            else:
                hidden = hidden + variables[spec.name]
        return tf.reduce_mean(tf.square(hidden - batch["y"]))

    def torch_loss(variables: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        import torch

        hidden = batch["x"]
        for spec in specs:
            if len(spec.shape) == 2:
                hidden = torch.relu(hidden) @ variables[spec.name]
            else:
                hidden = hidden + variables[spec.name]
        return (hidden - batch["y"]).square().mean()

    return Workload(name, about, specs, batches, tf_loss, torch_loss)
