"""Models with large tables, of which each step uses a few rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .workload import POOL_SIZE, Batches, VariableSpec, Workload

TABLES = 26
ROWS = 100_000
DIM = 16
# A little above 1, as is usual for synthetic clicks: few ids are very frequent, most are rare.
ZIPF_EXPONENT = 1.1
DENSE_FEATURES = 13
_BOTTOM = (512, 256, 64, DIM)
_TOP = (512, 256, 1)


def tables(name: str, batch_size: int = 256) -> Workload:
    """Makes 26 tables, looked up and concatenated, below layers of 256, 128 and 1."""
    layers = _layers("top", TABLES * DIM, (256, 128, 1))

    def logits(framework: Any, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        return framework.dense(
            variables, "top", 3, framework.concat(_look_up(framework, variables, batch))
        )

    about = f"{TABLES} tables of {ROWS:,}x{DIM}, Zipf ids, layers 256-128-1, batch {batch_size}"
    return _clicks(name, about, layers, logits, batch_size)


def dlrm(name: str, batch_size: int = 512) -> Workload:
    """Makes the deep learning recommendation model (Naumov et al. 2019) on Criteo's features."""
    pairs = (TABLES + 1) * TABLES // 2
    layers = [*_layers("bottom", DENSE_FEATURES, _BOTTOM), *_layers("top", pairs + DIM, _TOP)]

    def logits(framework: Any, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        dense = framework.dense(variables, "bottom", len(_BOTTOM), batch["dense"])
        vectors = [dense, *_look_up(framework, variables, batch)]
        crossed = framework.concat([dense, framework.dot_products(vectors)])
        return framework.dense(variables, "top", len(_TOP), crossed)

    about = (
        f"{DENSE_FEATURES} dense and {TABLES} categorical features of dim {DIM}, Zipf ids, "
        f"layers 512-256-64-16 and 512-256-1, batch {batch_size}"
    )
    return _clicks(name, about, layers, logits, batch_size)


def zipf_ids(random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Draws ids below ROWS, int32: the k-th most frequent with a weight of k ** -ZIPF_EXPONENT."""
    weights = np.cumsum(np.arange(1, ROWS + 1, dtype=np.float64) ** -ZIPF_EXPONENT)
    ranks = np.searchsorted(weights, random.uniform(0, weights[-1], tuple(shape)))
    # Frequent rows do not lie side by side in a table that was filled by hashing.
    return (ranks.astype(np.int64) * 7919 % ROWS).astype(np.int32)


def _layers(prefix: str, units_in: int, widths: Sequence[int]) -> list[VariableSpec]:
    specs = []
    for index, units in enumerate(widths):
        scale = float((6 / units_in) ** 0.5)
        specs.append(VariableSpec(f"{prefix}_kernel_{index}", (units_in, units), scale))
        specs.append(VariableSpec(f"{prefix}_bias_{index}", (units,)))
        units_in = units
    return specs


def _look_up(framework: Any, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> list[Any]:
    ids = framework.columns(batch["ids"])
    return [framework.look_up(variables[f"table_{i}"], ids[i]) for i in range(TABLES)]


def _clicks(
    name: str, about: str, layers: Sequence[VariableSpec], logits: Any, batch_size: int
) -> Workload:
    specs = tuple(VariableSpec(f"table_{i}", (ROWS, DIM), 0.05) for i in range(TABLES))

    def batches(random: np.random.Generator) -> Batches:
        rows = (POOL_SIZE, batch_size)
        return {
            "ids": zipf_ids(random, (POOL_SIZE, TABLES, batch_size)),
            "dense": random.standard_normal((*rows, DENSE_FEATURES), np.float32),
            "label": random.integers(0, 2, (*rows, 1)).astype(np.float32),
        }

    def tf_loss(variables: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        from .tf_ops import TfOps

        return TfOps.click_loss(logits(TfOps, variables, batch), batch["label"])

    def torch_loss(variables: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:
        from .torch_ops import TorchOps

        return TorchOps.click_loss(logits(TorchOps, variables, batch), batch["label"])

    sparse = frozenset(spec.name for spec in specs)
    return Workload(name, about, (*specs, *layers), batches, tf_loss, torch_loss, sparse=sparse)
