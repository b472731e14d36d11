"""`--config FILE`: options from a TOML file, where neither a flag nor a variable gives them."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UsageError
from ..jobs.launch_options import LaunchOptions
from ..jobs.options import JobOptions
from ..model.references import nearest
from ..option import CONFIG_VARIABLE, all_definitions
from .arguments import ending_with_exit_code

# Kubernetes has such a value in `NAME_PORT` for each Service, one of the name paramserve too.
_SERVICE_SCHEMES = ("tcp://", "udp://", "sctp://")


def _look_up(context: typer.Context, path: str | None) -> str | None:
    """Checks the environment and reads the file, before the other options are looked up."""
    if context.resilient_parsing:
        return path
    with ending_with_exit_code(debug=False):
        _check_environment(context)
        if path is not None:
            context.default_map = _read(context, path)
    return path


Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file of options by name, for those without a flag or a variable.",
        envvar=CONFIG_VARIABLE,
        show_envvar=False,
        is_eager=True,
        callback=_look_up,
    ),
]


def _check_environment(context: typer.Context) -> None:
    """Drops variables that are no options, and names the variable of a malformed value."""
    for parameter in context.command.params:
        text = os.environ.get(str(parameter.envvar), "")
        if text.startswith(_SERVICE_SCHEMES):
            parameter.envvar = None
        elif text:
            value = parameter.value_from_envvar(context)
            _check(context, f"{parameter.envvar}={text}", parameter, value)


def _read(context: typer.Context, path: str) -> dict[str, Any]:
    """Returns the values of a file by the names of the command's parameters, as text.

    Raises:
        UsageError: The file cannot be read, a name is unknown, or a value is of another form.
    """
    try:
        content = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise UsageError(f"--config {path!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--config {path!r} is no TOML: {error}") from error
    known = _known(context)
    parameters = {each.name: each for each in context.command.params}
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = known.get(key.replace("_", "-"))
        if name is None:
            raise UsageError(f"--config {path!r} has no option {key!r}: {_hint(key, known)}")
        if name in values:
            raise UsageError(f"--config {path!r} gives {key!r} twice, by two names: leave one out")
        # A file may be shared with commands that take more.
        if name in parameters:
            values[name] = _as_text(path, key, value)
            _check(context, f"--config {path!r}: {key}", parameters[name], values[name])
    return values


def _known(context: typer.Context) -> dict[str, str]:
    """Returns names of parameters by their names in a file: the flag's name, or the keyword."""
    every: dict[str, str] = {}
    for each in all_definitions(JobOptions, LaunchOptions):
        every |= {each.name.replace("_", "-"): each.name, each.key: each.name}
    own = {
        flag.removeprefix("--"): str(each.name)
        for each in context.command.params
        for flag in each.opts
        if each.envvar is not None and each.name != "config"
    }
    return every | own


def _hint(key: str, known: Mapping[str, str]) -> str:
    return nearest(key, known) or f"it takes {', '.join(sorted(known))}"


def _as_text(path: str, key: str, value: Any) -> str | list[str]:
    """Converts a value to its form on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return [f"{name}={_as_text(path, f'{key}.{name}', each)}" for name, each in value.items()]
    if isinstance(value, list):
        return [str(each) for each in value]
    if isinstance(value, str | int | float):
        return str(value)
    raise UsageError(f"--config {path!r}: {key} = {value}: expected a string, number or switch")


def _check(context: typer.Context, where: str, parameter: Any, value: Any) -> None:
    if isinstance(value, list | tuple) is not parameter.multiple:
        what = "a table or list of KEY=VALUE" if parameter.multiple else "one value"
        raise UsageError(f"{where}: expected {what}")
    try:
        parameter.process_value(context, value)
    except typer.BadParameter as error:
        raise UsageError(f"{where}: {error.message}") from error
