"""Values of hyperparameters: their types, as text, and in TensorFlow 1's protocol buffer."""

from __future__ import annotations

import numbers
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...protos.hparam_pb2 import HParamDef

BOOLS = (bool, np.bool_)


class ParamType(NamedTuple):
    """The type of a hyperparameter.

    Attributes:
        element: The type of its value, or of its list's elements. `NoneType` takes anything.
        is_list: Whether it has a list of values.
    """

    element: type
    is_list: bool

    def __str__(self) -> str:
        return f"list of {self.element.__name__}" if self.is_list else self.element.__name__


def infer(name: str, value: Any) -> ParamType:
    """Returns the type that a hyperparameter gets from its first value.

    Raises:
        ValueError: If `value` is an empty list, which tells no type.
    """
    if not isinstance(value, list | tuple):
        return ParamType(type(value), False)
    if not value:
        raise ValueError(
            f"the multi-valued hyperparameter {name!r} cannot be empty: its first element tells "
            "its type"
        )
    return ParamType(type(value[0]), True)


def convert(name: str, kind: ParamType, value: Any) -> Any:
    """Returns `value` as the hyperparameter's type, or a list of such for a list.

    Raises:
        ValueError: If the value does not fit: see `_convert_element`, or there is a list where
            one value belongs, or the other way round.
    """
    if issubclass(kind.element, type(None)):
        return value
    if not isinstance(value, list | tuple):
        if kind.is_list:
            raise ValueError(
                f"Must pass a list for the multi-valued hyperparameter {name!r}, not {value!r}"
            )
        return _convert_element(name, kind.element, value)
    if not kind.is_list:
        raise ValueError(
            f"Must not pass a list for the single-valued hyperparameter {name!r}: {value!r}"
        )
    return [_convert_element(name, kind.element, element) for element in value]


def _convert_element(name: str, element: type, value: Any) -> Any:
    """Returns one value as type `element`, if nothing is lost or guessed.

    An integer becomes a float. There is no other conversion between integers, floats, texts and
    bools. For other types the type decides: it is called.
    """
    if _fits(element, value):
        try:
            return _as(element, value)
        except (TypeError, ValueError):
            pass
    raise ValueError(
        f"Could not cast hparam {name!r} of type {element.__name__!r} from value {value!r}: give "
        f"a value of type {element.__name__}"
    )


def _fits(element: type, value: Any) -> bool:
    if issubclass(element, BOOLS) or isinstance(value, BOOLS):
        return issubclass(element, BOOLS) and isinstance(value, BOOLS)
    for kind in (str | bytes, numbers.Integral, numbers.Number):
        if issubclass(element, kind):
            return isinstance(value, kind)
    return True


def _as(element: type, value: Any) -> Any:
    if issubclass(element, str) and isinstance(value, bytes):
        return value.decode()
    if issubclass(element, bytes) and isinstance(value, str):
        return value.encode()
    # A number's type is called even so, to be rid of NumPy's and other subclasses.
    if isinstance(value, element) and not issubclass(element, numbers.Number):
        return value
    return element(value)


_ASSIGNMENT = re.compile(
    r"""
    \s*(?P<name>[A-Za-z][\w.]*)
    \s*(?:\[\s*(?P<index>\d+)\s*\])?
    \s*=\s*
    (?: \[(?P<elements>[^\]]*)\]\s* | (?P<value>[^,\[]*) )
    (?: ,\s* | \Z )
    """,
    re.VERBOSE,
)
_BOOLS = {"true": True, "True": True, "false": False, "False": False}


def parse_values(
    values: str, type_map: Mapping[str, type], ignore_unknown: bool = False
) -> dict[str, Any]:
    """Reads assignments, separated by commas, with the types that the names have.

    There are three forms: "name=value"; "name=[value,value]", which may be empty and takes blanks
    as separators too; and "name[index]=value", which may come once for each index.

    Example::

        >>> parse_values("rate=0.1,layers=[64,32],decay[1]=1", {"rate": float, "layers": int, \
"decay": float})
        {'rate': 0.1, 'layers': [64, 32], 'decay': {1: 1.0}}

    Args:
        values: The text. A name starts with a letter; letters, digits, "_" and "." follow.
        type_map: Name to type of the value, or of the elements of a list. A bool is written true,
            True, false, False, or as an integer; `NoneType` takes the text as it is.
        ignore_unknown: Whether to pass over names that `type_map` lacks.

    Returns:
        Name to value, to the list of values, or to a dict from index to value.

    Raises:
        ValueError: A name is unknown; a value is not of its type; a name or index comes twice; a
            list is assigned to an index; or the text is malformed.
    """
    results: dict[str, Any] = {}
    position = 0
    while position < len(values):
        match = _ASSIGNMENT.match(values, position)
        if match is None:
            raise ValueError(
                f"Malformed hyperparameter value: {values[position:]!r}; write name=value, "
                "name=[value,value] or name[index]=value, separated by commas"
            )
        position = match.end()
        if match["name"] in type_map:
            _assign(match, type_map[match["name"]], results, values)
        elif not ignore_unknown:
            raise ValueError(
                f"Unknown hyperparameter type for {match['name']} in {values!r}; known are: "
                f"{', '.join(sorted(type_map)) or 'none'}"
            )
    return results


def _assign(match: re.Match[str], kind: type, results: dict[str, Any], text: str) -> None:
    """Adds one assignment to `results`."""
    name, index, elements = match["name"], match["index"], match["elements"]
    if index is None:
        if name in results:
            raise _reused(name, text)
        if elements is None:
            results[name] = _parse(name, kind, match["value"], text)
        else:
            parts = [part for part in re.split(r"[\s,]", elements) if part]
            results[name] = [_parse(name, kind, part, text) for part in parts]
        return
    if elements is not None:
        raise ValueError(
            f"Assignment of a list to a list index. In {text!r} {name}[{index}] takes one value"
        )
    by_index = results.setdefault(name, {})
    if not isinstance(by_index, dict):
        raise _reused(name, text)
    if int(index) in by_index:
        raise _reused(f"{name}[{index}]", text)
    by_index[int(index)] = _parse(name, kind, match["value"], text)


def _reused(name: str, text: str) -> ValueError:
    return ValueError(f"Multiple assignments to variable '{name}' in {text!r}: keep one of them")


def _parse(name: str, kind: type, value: str, text: str) -> Any:
    try:
        return _parser(kind)(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Could not parse hparam {name!r} of type {kind.__name__!r} with value {value!r} in "
            f"{text!r}"
        ) from error


def _parser(kind: type) -> Callable[[str], Any]:
    if issubclass(kind, BOOLS):
        return lambda value: _BOOLS[value] if value in _BOOLS else bool(int(value))
    if issubclass(kind, bytes):
        return str.encode
    if issubclass(kind, type(None)):
        return str
    return kind


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
