"""The variables of known networks, with hardly any arithmetic: only transfers remain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .workload import POOL_SIZE, Batches, VariableSpec, Workload

Shape = tuple[int, ...]


def shapes_only(name: str, about: str, shapes: Sequence[Shape]) -> Workload:
    """Makes each gradient its variable times a number: full size, one pass over memory.

    It needs the variable's value, and no two gradients are the same: otherwise TensorFlow would
    rightly not send them.
    """
    specs = tuple(VariableSpec(f"v{index}", shape, 0.05) for index, shape in enumerate(shapes))

    def batches(random: np.random.Generator) -> Batches:
        return {"factor": random.uniform(0.5, 1.5, POOL_SIZE).astype(np.float32)}

    def tf_loss(variables: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        import tensorflow as tf

        return batch["factor"] * tf.add_n([tf.nn.l2_loss(variables[spec.name]) for spec in specs])

    def torch_loss(variables: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        import torch

        from .torch_ops import half_square

        halves = [half_square(variables[spec.name]) for spec in specs]
        return batch["factor"] * torch.stack(halves).sum()

    return Workload(name, about, specs, batches, tf_loss, torch_loss)


def resnet50_shapes() -> list[Shape]:
    """Returns the 161 trainable variables of ResNet-50 (He et al. 2015, table 1)."""
    shapes = _normalized((7, 7, 3, 64))
    channels = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            if block == 0:
                shapes += _normalized((1, 1, channels, 4 * width))
            shapes += _normalized((1, 1, channels, width))
            shapes += _normalized((3, 3, width, width))
            shapes += _normalized((1, 1, width, 4 * width))
            channels = 4 * width
    return [*shapes, (channels, 1000), (1000,)]


def _normalized(kernel: Shape) -> list[Shape]:
    """Returns a convolution without a bias, and scale and shift of its batch normalization."""
    return [kernel, kernel[-1:], kernel[-1:]]


def vgg16_shapes(hidden: int = 4096) -> list[Shape]:
    """Returns the variables of VGG-16 (Simonyan and Zisserman 2014, configuration D).

    Args:
        hidden: Units of the first dense layer, whose kernel is most of the network: 411 MB with the
            paper's 4,096.
    """
    shapes: list[Shape] = []
    channels = 3
    for repeats, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(repeats):
            shapes += [(3, 3, channels, width), (width,)]
            channels = width
    for units_in, units in ((7 * 7 * 512, hidden), (hidden, 4096), (4096, 1000)):
        shapes += [(units_in, units), (units,)]
    return shapes
