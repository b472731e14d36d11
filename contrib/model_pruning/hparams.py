"""The hyperparameters of pruning, their checks, and the settings of single weights in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from ..training.hparam import HParams


def get_pruning_hparams() -> HParams:
    """Returns the default hyperparameters of `Pruning`; `parse("a=1,b=[x,y]")` changes them.

    Returns:
      A new `HParams` with:

      - name: the name of the variable and the ops of pruning.
      - begin_pruning_step, end_pruning_step: the first and the last global step at which
        `conditional_mask_update_op` updates masks; -1 as the last means no end.
      - weight_sparsity_map: final sparsities of single weights, "name_regex:sparsity" each. A
        weight whose name matches none gets target_sparsity. `re.search` is used.
      - block_dims_map: block sizes of single weights, "name_regex:HxW" each.
      - threshold_decay: in [0, 1): how much of the old threshold stays at an update.
      - pruning_frequency: global steps between two updates.
      - nbins: accepted, and without effect: thresholds are exact, not taken from a histogram.
      - block_height, block_width: rows and columns of weights that are kept or pruned together;
        -1 means all of them. Only for weights of rank 2, dimensions of size 1 not counted.
      - block_pooling_function: "AVG" or "MAX" of the absolute weights of a block decides.
      - initial_sparsity, target_sparsity: in [0, 1): sparsity at both ends of the schedule.
      - sparsity_function_begin_step, sparsity_function_end_step: the schedule's ends in global
        steps; it stays flat outside.
      - sparsity_function_exponent: 1 is a straight line; 3 prunes fast at first, slowly at the end.
      - use_tpu: pools blocks by two one-dimensional pools, and keeps the last update's step in a
        resource variable. The masks are the same.
      - do_not_prune: parts of names; weights with such a name keep their masks as they are.
    """
    return HParams(
        name="model_pruning",
        begin_pruning_step=0,
        end_pruning_step=-1,
        weight_sparsity_map=[""],
        block_dims_map=[""],
        threshold_decay=0.0,
        pruning_frequency=10,
        nbins=256,
        block_height=1,
        block_width=1,
        block_pooling_function="AVG",
        initial_sparsity=0.0,
        target_sparsity=0.5,
        sparsity_function_begin_step=0,
        sparsity_function_end_step=100,
        sparsity_function_exponent=3.0,
        use_tpu=False,
        do_not_prune=[""],
    )


def check_hparams(spec: Any) -> None:
    """Checks the numbers of `get_pruning_hparams()` after a user's changes.

    Raises:
      ValueError: A step is negative, a beginning does not come before its end, or a fraction is
        outside of [0, 1).
    """
    _check_begin("begin_pruning_step", spec.begin_pruning_step)
    if spec.end_pruning_step != -1 and spec.begin_pruning_step >= spec.end_pruning_step:
        raise ValueError(
            f"begin_pruning_step={spec.begin_pruning_step} has to be smaller than "
            f"end_pruning_step={spec.end_pruning_step}; use -1 for no end"
        )
    _check_begin("sparsity_function_begin_step", spec.sparsity_function_begin_step)
    if spec.sparsity_function_begin_step >= spec.sparsity_function_end_step:
        raise ValueError(
            f"sparsity_function_begin_step={spec.sparsity_function_begin_step} has to be smaller "
            f"than sparsity_function_end_step={spec.sparsity_function_end_step}"
        )
    for name in ("threshold_decay", "initial_sparsity", "target_sparsity"):
        value = getattr(spec, name)
        if not 0.0 <= value < 1.0:
            raise ValueError(f"{name}={value} has to be in range [0, 1)")


def _check_begin(name: str, step: int) -> None:
    if step < 0:
        raise ValueError(f"{name}={step} must not be negative: use 0 to begin at once")


Value = TypeVar("Value")


class WeightMap(Generic[Value]):
    """Values for the weights whose names match a regular expression.

    Args:
      setting: The hyperparameter's name, for errors.
      entries: "name_regex:value" each; empty ones count for nothing.
      parse: Makes a value from the text after the last colon.

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
