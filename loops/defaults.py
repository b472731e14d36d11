"""Marker for the default of an argument for which None has a meaning of its own."""

from __future__ import annotations

import enum
from typing import Any


class Default(enum.Enum):
    """The only value of its type, so that nothing else is taken for it."""

    USE_DEFAULT = "default"

    def __repr__(self) -> str:
        # As the original's documents write it in signatures.
        return "_USE_DEFAULT"


USE_DEFAULT = Default.USE_DEFAULT


def is_default(value: Any) -> bool:
    """Returns whether an argument has its default; 0 counts as default, for old programs."""
    # A tensor or variable is never compared: that would add to the graph, or fail.
    return value is USE_DEFAULT or (isinstance(value, int) and value == 0)
