"""Keyword arguments of `Job`: their names and types, checked before anything else."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import fields
from numbers import Real
from typing import Any

from ..data_plane.options import DataPlane
from ..errors import UsageError
from ..model.references import nearest
from .options import JobOptions


def make_options(
    model: str, values: Mapping[str, Any], job_keywords: Collection[str]
) -> JobOptions:
    """Options of a job from keyword arguments.

    Args:
        model: Reference to the build function.
        values: Fields of `JobOptions` by name.
        job_keywords: Further keywords that `Job` takes.

    Raises:
        UsageError: A name is unknown, `logdir` is missing, or a value is of another type or out of
            range.
    """
    kinds = {each.name: each for each in fields(JobOptions) if each.name != "model"}
    for name in values:
        if name not in kinds:
            raise _unknown(name, [*kinds, *job_keywords])
    if "logdir" not in values:
        raise UsageError(
            "logdir is missing: name a directory for checkpoints and events, as in "
            "Job(model, logdir='runs/first')"
        )
    checked: dict[str, Any] = {
        name: value
        if value is None and kinds[name].default is None
        else check_type(name, value, str(kinds[name].type))
        for name, value in values.items()
    }
    return JobOptions(model=model, **checked)


def check_type(name: str, value: Any, kind: str) -> Any:
    """A value as the type of its annotation.

    Args:
        name: The keyword.
        value: What it was given.
        kind: The annotation, as it is written.

    Raises:
        UsageError: It is of another type.
    """
    kinds = kind.split(" | ")
    if value is None and "None" in kinds:
        return None
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if "int" in kinds and is_number and float(value).is_integer():
        return int(value)
    if "float" in kinds and is_number:
        return float(value)
    if name == "logdir" and isinstance(value, os.PathLike):
        return os.fspath(value)
    types = {"bool": bool, "str": str, "DataPlane": DataPlane, "Mapping[str, str]": Mapping}
    if any(isinstance(value, types[each]) for each in kinds if each in types):
        return value
    words = {"int": "an integer", "float": "a number", "bool": "True or False", "str": "a string"}
    wanted = " or ".join(words.get(each, each) for each in kinds if each != "None")
    raise UsageError(f"{name}={value!r}: expected {wanted}")


def _unknown(name: str, known: Collection[str]) -> UsageError:
    if name in {each.name for each in fields(DataPlane)}:
        return UsageError(f"{name!r} is a field of DataPlane: data_plane=DataPlane({name}=...)")
    # As options of the command are called, which say `--ps` for `num_ps`.
    ends = sorted((each for each in known if each.endswith(f"_{name}")), key=len)
    hint = nearest(name, ends[:1] or known) or f"it takes {', '.join(sorted(known))}"
    return UsageError(f"Job has no argument {name!r}: {hint}")
