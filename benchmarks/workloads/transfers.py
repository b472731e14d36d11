"""Nothing but bytes: all variables to the worker, or a sum back, or both."""

from __future__ import annotations

from .workload import Transfer, VariableSpec, Workload

MEBIBYTE = 1 << 20


def transfer(name: str, what: Transfer, mebibytes: int, variables: int) -> Workload:
    """Makes `mebibytes` in `variables` equal pieces, in each direction that `what` names."""
    floats = mebibytes * MEBIBYTE // 4 // variables
    specs = tuple(VariableSpec(f"piece_{index}", (floats,)) for index in range(variables))
    about = f"{what} of {mebibytes} MiB in {variables} variables, no model"
    return Workload(name, about, specs, transfer=what)
