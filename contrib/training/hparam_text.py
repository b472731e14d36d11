"""Hyperparameters as one line of text: "learning_rate=0.1,layers=[64,32],decay[1]=0.5"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .hparam_types import BOOLS

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
        ValueError: A name is unknown, a value is not of its type, a name or index comes twice, a
            list is assigned to an index, or the text is malformed.
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
    """Adds what one assignment says to `results`."""
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
