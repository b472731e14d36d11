"""The handover of options to a process, in one argument."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import UsageError
from ..model.references import nearest
from ..option import all_definitions


def options_to_json(values: Mapping[str, Any]) -> str:
    """Returns options by name as JSON, in one word where no value has a space."""
    return json.dumps(values, separators=(",", ":"))


def options_from_json(cls: type, text: str) -> dict[str, Any]:
    """Reads the result of `options_to_json`.

    Args:
        cls: The dataclass of the options.
        text: The JSON.

    Raises:
        UsageError: It is no JSON object, or has other options than the dataclass.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--options is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise UsageError("--options is no JSON object: expected options by name")
    known = {each.name: each for each in all_definitions(cls)}
    for name in values:
        if name not in known:
            raise UsageError(f"--options has no {name!r}: {nearest(name, known)}")
    for name, each in known.items():
        if each.is_required and name not in values:
            raise UsageError(f"--options lacks {name!r}: give it as for {each.first_flag}")
    return values
