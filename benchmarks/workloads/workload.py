"""`Workload`: one model with its input, independent of the system that trains it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Batches = dict[str, np.ndarray]
Loss = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
Transfer = Literal["pull", "push", "pull-push"]

FLOAT_BYTES = 4
POOL_SIZE = 16


@dataclass(frozen=True)
class VariableSpec:
    """A trainable float32 variable.

    Attributes:
        name: Unique in its workload.
        shape: Static.
        scale: Half the width of the uniform distribution that it starts from; 0 starts it at 0.
    """

    name: str
    shape: tuple[int, ...]
    scale: float = 0.0

    @property
    def bytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * FLOAT_BYTES


def _no_batches(_: np.random.Generator) -> Batches:
    return {}


@dataclass(frozen=True)
class Workload:
    """A model with its input.

    Attributes:
        name: Its name on the command line.
        about: One line for `--list`.
        variables: The variables, in the order in which the model uses them.
        batches: Makes the pool of input: arrays [POOL_SIZE, ...], of which each step takes one.
        tf_loss: From variables and one batch, by name, to a scalar loss, with TensorFlow's ops;
            None for a pure transfer.
        torch_loss: The same with PyTorch; None if PyTorch users would not train it so.
        transfer: The transfer of a step, instead of a loss. A pull reads all variables on the
            worker, a push adds a tensor to each.
        sparse: Names of the variables of which a step uses a few rows.
        learning_rate: Of gradient descent; tiny, so that the arithmetic stays finite however long
            it runs.
    """

    name: str
    about: str
    variables: tuple[VariableSpec, ...]
    batches: Callable[[np.random.Generator], Batches] = _no_batches
    tf_loss: Loss | None = None
    torch_loss: Loss | None = None
    transfer: Transfer | None = None
    sparse: frozenset[str] = frozenset()
    learning_rate: float = 1e-6

    @property
    def bytes(self) -> int:
        """Bytes of all variables."""
        return sum(variable.bytes for variable in self.variables)

    @property
    def bytes_per_step(self) -> int:
        """Bytes that a worker moves in a step when each dense variable crosses once each way."""
        dense = sum(each.bytes for each in self.variables if each.name not in self.sparse)
        return dense if self.transfer in ("pull", "push") else 2 * dense

    def input_pool(self, seed: int = 0) -> Batches:
        """Returns the pool of input, the same for every system and task."""
        return self.batches(np.random.default_rng(seed))
