"""Ways to use this library that are measured side by side: a line each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

# Arguments of `DataPlane`. "ps_on_workers" is for the cluster: workers hold the parameters.
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "paramserve": {},
        "paramserve-plain": {"transfer_bucket_bytes": 0},
        "paramserve-flat": {"storage": "flat"},
        "paramserve-bf16": {"wire_dtype": "bfloat16"},
        "paramserve-flat-bf16": {"storage": "flat", "wire_dtype": "bfloat16"},
        "paramserve-stale-pull": {"stale_pull": True},
        "paramserve-colocated": {"ps_on_workers": True, "max_shard_bytes": 4 << 20},
    }
)
