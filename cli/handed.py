"""`--options JSON`: all options of a role at once, as a launcher hands them over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ..errors import UsageError
from ..jobs.handover import options_from_json
from ..option import all_definitions
from .arguments import ending_with_exit_code
from .options import read_values

Handed = Annotated[
    str | None,
    typer.Option("--options", help="All options as JSON, from a launcher.", hidden=True),
]


def take_values(
    cls: type, context: typer.Context, handed: str | None, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the options of a command by name: those of a launcher, or else of the command line.

    Args:
        cls: The dataclass of the options.
        context: Of the command.
        handed: JSON of a launcher; None if a person or a manifest gave flags.
        values: From the command line.
    """
    with ending_with_exit_code(values["debug"]):
        if handed is None:
            return read_values(cls, values=values)
        _refuse_flags(cls, context)
        return options_from_json(cls, handed)


def _refuse_flags(cls: type, context: typer.Context) -> None:
    """Refuses flags that the JSON would silently overrule.

    Raises:
        UsageError: There is one.
    """
    for each in all_definitions(cls):
        source = context.get_parameter_source(each.name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{each.first_flag} beside --options, which has it: leave one out")
