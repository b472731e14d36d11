"""The handover of a job's options to its chief, in one argument."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ..errors import UsageError
from ..model.references import nearest
from ..option import all_definitions, build
from .options import JobOptions


def options_to_json(options: JobOptions) -> str:
    """Returns the options as JSON, for a process that may run in another directory."""
    values = asdict(options)
    is_url = "://" in options.logdir
    values["logdir"] = options.logdir if is_url else str(Path(options.logdir).resolve())
    values["params"] = {key: str(value) for key, value in options.params.items()}
    values |= values.pop("data_plane")
    del values["model"]
    return json.dumps(values)


def options_from_json(model: str, text: str) -> JobOptions:
    """The inverse of `options_to_json`.

    Args:
        model: Reference to the build function; a launcher may move it.
        text: The JSON.

    Raises:
        UsageError: It is no JSON object of options, or a value is out of range.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--options is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise UsageError("--options is no JSON object: expected options of a job by name")
    known = {each.name for each in all_definitions(JobOptions)}
    for name in values:
        if name not in known:
            raise UsageError(f"--options has no {name!r}: {nearest(name, known)}")
    return build(JobOptions, {"model": model, **values})
