"""Keyword arguments of `Job`: their names and types, checked before anything else."""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from functools import cache
from numbers import Real
from typing import Any, TypeVar, get_type_hints

from ..cluster.security import SecurityOptions
from ..data_plane.options import DataPlane
from ..errors import UsageError
from ..model.references import nearest
from ..option import kinds_of
from .launch_options import LaunchOptions
from .options import JobOptions

T = TypeVar("T")
_WORDS = {
    int: "an integer",
    float: "a number",
    bool: "True or False",
    str: "a string",
    Mapping: "Mapping[str, str]",
}


def make_options(model: str, values: Mapping[str, Any]) -> tuple[JobOptions, LaunchOptions]:
    """Makes the options of a job, and of its launcher, from keyword arguments.

    Args:
        model: Reference to the build function.
        values: Fields of `JobOptions` and `LaunchOptions` by name.

    Raises:
        UsageError: A name is unknown, `logdir` is missing, or a value is of another type or out of
            range.
    """
    known = [*_parameters(LaunchOptions), *_parameters(JobOptions)]
    for name in values:
        if name not in known:
            raise _unknown(name, known)
    if "logdir" not in values:
        raise UsageError(
            "logdir is missing: name a directory for checkpoints and events, as in "
            "Job(model, logdir='runs/first')"
        )
    launch = LaunchOptions(**_take(LaunchOptions, values))
    options = JobOptions(model=model, **_take(JobOptions, values))
    launch.check_with(options)
    return options, launch


def signature() -> inspect.Signature:
    """Returns the signature of `Job`, for `help` and for editors."""
    parameters = [*_parameters(LaunchOptions).values(), *_parameters(JobOptions).values()]
    model = inspect.Parameter("model", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # The log directory has no default; keywords may stand in any order.
    return inspect.Signature([model, *parameters])


@cache
def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    hints = get_type_hints(cls)
    return {
        each.name: inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=hints[each.name],
            default=_default(each),
        )
        for each in fields(cls)
        if each.name != "model"
    }


def _default(field: Any) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def _take(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a dataclass' fields, of the fields' types."""
    return {
        name: value
        if value is None and parameter.default is None
        else _check_type(name, value, kinds_of(parameter.annotation))
        for name, parameter in _parameters(cls).items()
        if name in values
        for value in [values[name]]
    }


def _check_type(name: str, value: Any, kinds: Collection[type]) -> Any:
    """Converts a value to one of the types of its annotation.

    Raises:
        UsageError: It is of another type.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if int in kinds and is_number and float(value).is_integer():
        return int(value)
    if float in kinds and is_number:
        return float(value)
    if name == "logdir" and isinstance(value, os.PathLike):
        return os.fspath(value)
    if any(isinstance(value, each) for each in kinds if each not in (int, float)):
        return value
    words = (_WORDS.get(each, each.__name__) for each in kinds if each is not type(None))
    raise UsageError(f"{name}={value!r}: expected {' or '.join(words)}")


def _unknown(name: str, known: Collection[str]) -> UsageError:
    for keyword, cls in (("data_plane", DataPlane), ("security", SecurityOptions)):
        if name in {each.name for each in fields(cls)}:
            kind = cls.__name__
            return UsageError(f"{name!r} is a field of {kind}: {keyword}={kind}({name}=...)")
    # As options of the command are called, which say `--ps` for `num_ps`.
    ends = sorted((each for each in known if each.endswith(f"_{name}")), key=len)
    hint = nearest(name, ends[:1] or known) or f"it takes {', '.join(sorted(known))}"
    return UsageError(f"Job has no argument {name!r}: {hint}")
