"""From definitions of options to a command's parameters: flags, environment and file."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_type_hints

import typer

from ..errors import UsageError
from ..option import Definition, all_definitions, definitions


def flag_of(cls: type, name: str) -> Any:
    """Returns the command-line option of a field, for an annotation."""
    return _as_flag(definitions(cls)[name])


def take_options(
    *classes: type, defaults: Mapping[str, Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of dataclasses, in place of its `**values`.

    Args:
        *classes: The dataclasses.
        defaults: Defaults on the command line that differ from the field's, by name.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def taking(**values: Any) -> None:
            command(**values)

        hints = get_type_hints(command, include_extras=True)
        own = [
            each.replace(annotation=hints[each.name])
            for each in inspect.signature(command).parameters.values()
            if each.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        taken = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=Annotated[_kind(each, default), _as_flag(each)],
                default=default,
            )
            for each in all_definitions(*classes)
            for default in [defaults.get(each.name, _default(each))]
        ]
        parameters = [*taken, *(each.replace(kind=each.KEYWORD_ONLY) for each in own)]
        taking.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        taking.__annotations__ = {each.name: each.annotation for each in parameters}
        return taking

    return decorate


def read_values(*classes: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the command line's values as the dataclasses' fields have them, if it has any.

    Raises:
        UsageError: A value is of another form.
    """
    return {
        each.name: _read(each, values[each.name])
        for each in all_definitions(*classes)
        if values.get(each.name) is not None
    }


def parse_params(params: list[str] | None) -> dict[str, str]:
    """Converts KEY=VALUE texts to a dictionary.

    Raises:
        UsageError: One has no "=".
    """
    pairs = [param.partition("=") for param in params or ()]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise UsageError(f"--param {key!r}: expected KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _as_flag(each: Definition) -> Any:
    choices = each.option.choices
    return typer.Option(
        each.flag,
        help=each.option.help,
        rich_help_panel=each.option.panel,
        metavar=each.option.metavar or "|".join(choices) or None,
        autocompletion=(lambda: list(choices)) if choices else None,
        envvar=None if each.option.is_flag_only else each.variable,
        show_envvar=False,
    )


def _kind(each: Definition, default: Any) -> Any:
    """Returns the type as which the command line reads a value; a string if it may be one."""
    if Mapping in each.kinds:
        return list[str] | None
    kind: Any = str if str in each.kinds else each.kinds[0]
    return kind if default is not None else kind | None


def _default(each: Definition) -> Any:
    return 0.0 if each.option.zero_is_none and each.default is None else each.default


def _read(each: Definition, value: Any) -> Any:
    if Mapping in each.kinds:
        return parse_params(value)
    if each.option.zero_is_none:
        return value or None
    if int in each.kinds and isinstance(value, str):
        # A number if it is one; other values are checked by the dataclass.
        return int(value) if value.lstrip("-").isdecimal() else value
    return value
