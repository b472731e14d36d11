"""Settings of single weights, chosen by their names: "name_regex:value"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class WeightMap(Generic[Value]):
    """Values for the weights whose names match a regular expression.

    Args:
      setting: The hyperparameter's name, for errors.
      entries: "name_regex:value" each; empty ones count for nothing.
      parse: Makes a value of the text after the last colon.

    Raises:
      ValueError: An entry has no colon, a bad regular expression, or a bad value.
    """

    def __init__(self, setting: str, entries: Iterable[str], parse: Callable[[str], Value]) -> None:
        self._setting = setting
        self._values: list[tuple[re.Pattern[str], Value]] = []
        for entry in filter(None, entries):
            regex, colon, text = entry.rpartition(":")
            if not colon:
                raise ValueError(f"{setting}: {entry!r} should be 'name_regex:value'")
            try:
                self._values.append((re.compile(regex), parse(text)))
            except (re.error, ValueError) as error:
                raise ValueError(f"{setting}: {entry!r}: {error}") from error

    def get(self, name: str) -> Value | None:
        """Returns the value for the weight `name`, or None if nothing matches.

        Raises:
          ValueError: More than one expression matches.
        """
        found = [(regex.pattern, value) for regex, value in self._values if regex.search(name)]
        if len(found) > 1:
            raise ValueError(
                f"{self._setting}: the weight {name!r} matches more than one expression: "
                f"{', '.join(repr(pattern) for pattern, _ in found)}; at most one may match"
            )
        return found[0][1] if found else None


def parse_sparsity(text: str) -> float:
    """Reads a final sparsity, in [0, 1).

    Raises:
      ValueError: It is no number, or not in that range.
    """
    sparsity = float(text)
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(f"a weight's sparsity has to be in range [0, 1), not {sparsity}")
    return sparsity


def parse_block_dims(text: str) -> tuple[int, int]:
    """Reads the height and width of a block, "HxW"; -1 stands for all rows or columns.

    Raises:
      ValueError: There are not two whole numbers, or one of them is 0 or below -1.
    """
    dims = text.split("x")
    if len(dims) != 2:
        raise ValueError(f"Expected 2 values for block dim, 'HxW', got {text!r}")
    return check_block_dims(int(dims[0]), int(dims[1]))


def check_block_dims(height: int, width: int) -> tuple[int, int]:
    """Returns the two if they are positive or -1.

    Raises:
      ValueError: One is not.
    """
    if any(size < 1 and size != -1 for size in (height, width)):
        raise ValueError(
            f"a block of {height}x{width} weights is impossible: use positive sizes, or -1 for all"
        )
    return height, width
