"""Types of hyperparameters, inferred from their first values."""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

import numpy as np

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
        ValueError: If the value does not fit: see `convert_element`, or there is a list where
            one value belongs, or the other way round.
    """
    if issubclass(kind.element, type(None)):
        return value
    if not isinstance(value, list | tuple):
        if kind.is_list:
            raise ValueError(
                f"Must pass a list for the multi-valued hyperparameter {name!r}, not {value!r}"
            )
        return convert_element(name, kind.element, value)
    if not kind.is_list:
        raise ValueError(
            f"Must not pass a list for the single-valued hyperparameter {name!r}: {value!r}"
        )
    return [convert_element(name, kind.element, element) for element in value]


def convert_element(name: str, element: type, value: Any) -> Any:
    """Returns one value as type `element`, if nothing is lost or guessed.

    An integer becomes a float, but no float an integer, no number a text, no text a number, and
    nothing a bool, nor a bool anything. For other types the type decides: it is called.

    Raises:
        ValueError: If the value does not fit.
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
