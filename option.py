"""`Option`: the one definition of a setting, behind flags, variables, files and keywords."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import UsageError

# Before the name of an option in the environment.
PREFIX = "PARAMSERVE_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Option:
    """The properties of a dataclass field beyond its type and default.

    Stands in the field's annotation: `max_steps: Annotated[int | None, Option(help=...)] = None`.

    Attributes:
        help: One sentence for `--help`.
        flag: Its form on the command line, "--sync/--async" for both of a switch; empty: the
            field's name with dashes.
        unit: Unit of a number, such as "seconds".
        choices: Strings that are allowed; empty: any.
        metavar: Stands for the value in `--help`; empty: the choices, or the type.
        panel: Heading in `--help`.
        least: Smallest number that is allowed.
        most: Largest one.
        is_positive: Whether the number has to be above 0.
        zero_is_none: Whether a 0 on the command line means None.
        is_flag_only: True if it belongs to one process alone, so that neither the environment nor a
            file has it.
    """

    help: str
    flag: str = ""
    unit: str = ""
    choices: tuple[str, ...] = ()
    metavar: str = ""
    panel: str | None = None
    least: int | None = None
    most: int | None = None
    is_positive: bool = False
    zero_is_none: bool = False
    is_flag_only: bool = False

    def __post_init__(self) -> None:
        if not self.help or (self.flag and not self.flag.startswith("--")):
            raise ValueError(f"{self}: an option has a help, and a flag begins with --")


@dataclass(frozen=True)
class Definition:
    """A field with an option.

    Attributes:
        name: Name of the field, and so of the keyword.
        kinds: Types of its value.
        default: None also where a field has none, or one that depends on other fields.
        option: Its further properties.
        is_required: True if the field has no default.
    """

    name: str
    kinds: tuple[type, ...]
    default: Any
    option: Option
    is_required: bool

    @property
    def flag(self) -> str:
        """The flag, with its opposite if there is one."""
        return self.option.flag or "--" + self.name.replace("_", "-")

    @property
    def first_flag(self) -> str:
        """The flag alone, as messages name it."""
        return self.flag.partition("/")[0]

    @property
    def key(self) -> str:
        """Its name in a configuration file."""
        return self.first_flag.removeprefix("--")

    @property
    def variable(self) -> str:
        """Its name in the environment, where it may stand there."""
        return PREFIX + self.key.replace("-", "_").upper()

    def check(self, value: Any) -> None:
        """Checks a value's range.

        Raises:
            UsageError: The message names the flag, the value and the expectation.
        """
        if isinstance(value, str):
            if self.option.choices and value not in self.option.choices:
                expected = " or ".join(self.option.choices)
                raise UsageError(f"{self.first_flag} {value!r}: expected {expected}")
        elif isinstance(value, int | float):
            least, most = self.option.least, self.option.most
            if most is not None and not (least or 0) <= value <= most:
                raise UsageError(f"{self.first_flag} {value}: expected {least or 0} to {most}")
            if least is not None and not value >= least:
                raise UsageError(f"{self.first_flag} {value}: expected at least {least}")
            if self.option.is_positive and not value > 0:
                unit = f" of {self.option.unit}" if self.option.unit else ""
                raise UsageError(f"{self.first_flag} {value:g}: expected a positive number{unit}")


def definitions(cls: type) -> Mapping[str, Definition]:
    """Returns the options among a dataclass' fields, by the fields' names; inherited ones last."""
    hints = get_type_hints(cls, include_extras=True)
    found = {}
    for each in _own_first(cls):
        hint = hints[each.name]
        options = [extra for extra in get_args(hint)[1:] if isinstance(extra, Option)]
        if get_origin(hint) is Annotated and options:
            default = None if each.default is MISSING else each.default
            is_required = each.default is MISSING and each.default_factory is MISSING
            kinds = kinds_of(hint)
            found[each.name] = Definition(each.name, kinds, default, options[0], is_required)
    return found


def all_definitions(*classes: type) -> Iterator[Definition]:
    """Yields the options of dataclasses, and of the dataclasses that their fields hold."""
    for cls in classes:
        own, nested = definitions(cls), _nested(cls)
        for each in _own_first(cls):
            if each.name in own:
                yield own[each.name]
            elif each.name in nested:
                yield from all_definitions(nested[each.name])


def values_of(options: Any) -> dict[str, Any]:
    """Returns the options of a dataclass' instance, and of those that its fields hold, by name."""
    values = {name: getattr(options, name) for name in definitions(type(options))}
    for name in _nested(type(options)):
        values |= values_of(getattr(options, name))
    return values


def kinds_of(hint: Any) -> tuple[type, ...]:
    """Returns the classes that an annotation stands for."""
    if get_origin(hint) is Annotated:
        return kinds_of(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(kind for each in get_args(hint) for kind in kinds_of(each))
    return (get_origin(hint) or hint,)


def check_ranges(values: Any) -> None:
    """Checks every option of an instance of a dataclass by itself.

    Raises:
        UsageError: A value is out of its range.
    """
    for name, each in definitions(type(values)).items():
        each.check(getattr(values, name))


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """Builds a dataclass, and the dataclasses in its fields, from values by name.

    Args:
        cls: The dataclass.
        values: Values of its fields and theirs; others are left alone.

    Raises:
        UsageError: A value is out of range.
    """
    own = {each.name: values[each.name] for each in fields(cls) if each.name in values}  # type: ignore[arg-type]
    own |= {name: build(nested, values) for name, nested in _nested(cls).items() if name not in own}
    return cls(**own)


def _own_first(cls: type) -> list[Field[Any]]:
    """Returns a dataclass' own fields, then those of its base classes."""
    declared = [name for base in cls.__mro__ for name in vars(base).get("__annotations__", ())]
    return sorted(fields(cls), key=lambda each: declared.index(each.name))


def _nested(cls: type) -> Mapping[str, type]:
    hints = get_type_hints(cls)
    return {
        each.name: hints[each.name]
        for each in fields(cls)
        if is_dataclass(hints[each.name]) and isinstance(hints[each.name], type)
    }
