"""The workloads that the command line knows, by name."""

from __future__ import annotations

import re
from collections.abc import Callable

from ...errors import UsageError
from .embeddings import dlrm, tables
from .layers import many_small, wide
from .shapes import resnet50_shapes, shapes_only, vgg16_shapes
from .transfers import MEBIBYTE, transfer
from .workload import Workload

_MAX_VARIABLES = 10_000
_MAX_MEBIBYTES = 4_096


def _catalog() -> dict[str, Callable[[str], Workload]]:
    return {
        "many-small": lambda name: many_small(name, 200),
        "wide": lambda name: wide(name, 3, 2048),
        "resnet50": lambda name: shapes_only(
            name, "ResNet-50's 161 variables, next to no arithmetic", resnet50_shapes()
        ),
        "tables": tables,
        "dlrm": dlrm,
        "vgg": lambda name: shapes_only(
            name, "VGG-16's 32 variables, one of 411 MB, next to no arithmetic", vgg16_shapes()
        ),
        "vgg8": lambda name: shapes_only(
            name, "VGG-16 with its largest kernel cut to an eighth, 51 MB", vgg16_shapes(512)
        ),
        "pull": lambda name: transfer(name, "pull", 64, 64),
        "push": lambda name: transfer(name, "push", 64, 64),
        "pull-push": lambda name: transfer(name, "pull-push", 64, 64),
        "pull-push-1": lambda name: transfer(name, "pull-push", 64, 1),
    }


def workload_names() -> tuple[str, ...]:
    """Returns all names except those of a family: see `find_workload`."""
    return tuple(_catalog())


def find_workload(name: str) -> Workload:
    """Returns the workload of that name.

    Args:
        name: One of `workload_names()`; or "variables-N", layers of 64 with N variables in all; or
            "mebibytes-N", 16 variables of N MiB in all with next to no arithmetic.

    Raises:
        UsageError: There is none.
    """
    make = _catalog().get(name)
    if make is not None:
        return make(name)
    family = re.fullmatch(r"(variables|mebibytes)-(\d{1,6})", name)
    if family is None:
        known = ", ".join(workload_names())
        raise UsageError(
            f"--workload {name!r}: expected one of {known}, variables-N or mebibytes-N"
        )
    return _of_family(name, family[1], int(family[2]))


def _of_family(name: str, family: str, count: int) -> Workload:
    limit = _MAX_VARIABLES if family == "variables" else _MAX_MEBIBYTES
    if not 1 <= count <= limit:
        raise UsageError(f"--workload {name!r}: expected {family} from 1 to {limit:,}")
    if family == "variables":
        return many_small(name, count)
    about = f"16 variables of {count} MiB in all, next to no arithmetic"
    return shapes_only(name, about, [(count * MEBIBYTE // 64,)] * 16)
