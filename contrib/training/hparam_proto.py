"""Hyperparameters as an `HParamDef`, the protocol buffer that TensorFlow 1 had for them."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...protos.hparam_pb2 import HParamDef
from .hparam_types import BOOLS, ParamType

# The order counts: a bool is an integer, and an integer a real number.
_FIELDS: tuple[tuple[Any, str], ...] = (
    (BOOLS, "bool"),
    (numbers.Integral, "int64"),
    (str | bytes, "bytes"),
    (numbers.Real, "float"),
)
_TYPES: dict[str, type] = {"bool": bool, "int64": int, "bytes": str, "float": float}


def pack(types: dict[str, ParamType], values: dict[str, Any]) -> HParamDef:
    """Returns the hyperparameters as a protocol buffer.

    Args:
        types: Name to type.
        values: Name to value.

    Raises:
        ValueError: If a type is none of bool, integer, float, text or bytes, or an integer has
            more than 64 bits.
    """
    definition = HParamDef()
    for name, (element, is_list) in types.items():
        field = _field(name, element)
        entry = definition.hparam[name]
        if is_list:
            # Says which type a list has that is empty.
            getattr(entry, f"{field}_list").SetInParent()
            packed = [_packed(field, value) for value in values[name]]
            getattr(entry, f"{field}_list").value.extend(packed)
        else:
            setattr(entry, f"{field}_value", _packed(field, values[name]))
    return definition


def unpack(definition: HParamDef) -> Iterator[tuple[str, ParamType, Any]]:
    """Yields name, type and value of each hyperparameter; bytes come as text.

    A float was stored with 32 bits; the value is the shortest number that stands for the same 32
    bits, so that 0.1 is 0.1 again and not 0.10000000149011612.

    Raises:
        ValueError: If a hyperparameter has no value.
    """
    for name, entry in definition.hparam.items():
        kind = entry.WhichOneof("kind")
        if kind is None:
            raise ValueError(f"the hyperparameter {name!r} of the HParamDef has no value")
        field, _, form = kind.rpartition("_")
        value = getattr(entry, kind)
        is_list = form == "list"
        unpacked = [_unpacked(field, each) for each in (value.value if is_list else [value])]
        yield name, ParamType(_TYPES[field], is_list), unpacked if is_list else unpacked[0]


def _field(name: str, element: type) -> str:
    for types, field in _FIELDS:
        if issubclass(element, types):
            return field
    raise ValueError(
        f"Unsupported parameter type: {name!r} is a {element.__name__}, and an HParamDef holds "
        "only bool, int, float, str and bytes: del_hparam() it first"
    )


def _packed(field: str, value: Any) -> Any:
    return value.encode() if field == "bytes" and isinstance(value, str) else value


def _unpacked(field: str, value: Any) -> Any:
    if field == "float":
        return float(str(np.float32(value)))
    return value.decode() if field == "bytes" else value
