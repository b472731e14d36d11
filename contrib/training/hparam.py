"""A set of named, typed hyperparameters, and the interface of a service that tunes them."""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...protos.hparam_pb2 import HParamDef
from .hparam_values import ParamType, convert, infer, pack, parse_values, unpack


class HParams:
    """Hyperparameters, each an attribute with the type of its first value.

    Example::

        hparams = HParams(learning_rate=0.1, layers=[64, 32], activation="relu")
        hparams.parse("learning_rate=0.3,layers=[128]")
        assert hparams.learning_rate == 0.3

    A list or tuple makes a multi-valued hyperparameter, whose elements have the type of the first
    one. A hyperparameter whose first value is None takes anything. Setting the attribute itself,
    as in `hparams.learning_rate = 1`, checks nothing; `set_hparam` does.

    Args:
        hparam_def: An `HParamDef` to take the hyperparameters from, in place of `kwargs`.
        model_structure: Any description of the model, which is kept beside the hyperparameters.
        **kwargs: Name to first value.

    Raises:
        AssertionError: `hparam_def` is something else.
        ValueError: Both `hparam_def` and `kwargs` are given, or see `add_hparam`.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(
        self, hparam_def: HParamDef | None = None, model_structure: Any = None, **kwargs: Any
    ) -> None:
        self._hparam_types: dict[str, ParamType] = {}
        self._model_structure = model_structure
        if hparam_def is not None:
            if not hasattr(hparam_def, "hparam"):
                raise AssertionError(
                    f"hparam_def={hparam_def!r} is no HParamDef: pass the result of to_proto(), or "
                    "hyperparameters by name"
                )
            if kwargs:
                raise ValueError(
                    f"hparam_def and values for {', '.join(kwargs)} are mutually exclusive: add "
                    "more with add_hparam()"
                )
            for name, kind, value in unpack(hparam_def):
                self._add(name, kind, value)
        for name, value in kwargs.items():
            self.add_hparam(name, value)

    def add_hparam(self, name: str, value: Any) -> None:
        """Adds a hyperparameter.

        Args:
            name: Its name. To be set by text it has to start with a letter and continue with
                letters, digits, "_" and ".".
            value: Its value, which decides its type.

        Raises:
            ValueError: The name is in use or is that of a method, or `value` is an empty list.
        """
        self._add(name, infer(name, value), value)

    def set_hparam(self, name: str, value: Any) -> None:
        """Sets a hyperparameter, checked against its type.

        Args:
            name: The name of a hyperparameter.
            value: The new value, or a list of values for a multi-valued one. An integer becomes a
                float where the type is float; nothing else is converted.

        Raises:
            KeyError: There is no such hyperparameter.
            ValueError: The value is not of the type, or there is a list where one value belongs
                or the other way round.
        """
        setattr(self, name, self._converted(name, value))

    def del_hparam(self, name: str) -> None:
        """Removes a hyperparameter, if there is one of that name."""
        if self._hparam_types.pop(name, None) is not None:
            delattr(self, name)

    def parse(self, values: str) -> HParams:
        """Sets hyperparameters from text such as "learning_rate=0.1,layers=[64,32],layers[0]=1".

        Either all are set or, after an error, none.

        Args:
            values: Assignments, in the form that `parse_values` reads. "name[index]=value" sets
                one element of a list.

        Returns:
            This object.

        Raises:
            ValueError: See `parse_values` and `set_hparam`, or a list has no such index.
        """
        types = {name: kind.element for name, kind in self._hparam_types.items()}
        parsed = parse_values(values, types)
        return self.override_from_dict(
            {
                name: self._with_elements(name, value) if isinstance(value, dict) else value
                for name, value in parsed.items()
            }
        )

    def override_from_dict(self, values_dict: Mapping[str, Any]) -> HParams:
        """Sets hyperparameters: all of them or, after an error, none.

        Args:
            values_dict: Name to value.

        Returns:
            This object.

        Raises:
            KeyError: A hyperparameter does not exist.
            ValueError: See `set_hparam`.
        """
        converted = {name: self._converted(name, value) for name, value in values_dict.items()}
        for name, value in converted.items():
            setattr(self, name, value)
        return self

    def set_from_map(self, values_map: Mapping[str, Any]) -> HParams:
        """Calls `override_from_dict`; the method's earlier name."""
        return self.override_from_dict(values_map)

    def parse_json(self, values_json: str) -> HParams:
        """Sets hyperparameters from a JSON object.

        Args:
            values_json: A JSON object of name to value.

        Returns:
            This object.

        Raises:
            KeyError: A hyperparameter does not exist.
            ValueError: The text is no JSON object; or see `set_hparam`.
        """
        values = json.loads(values_json)
        if not isinstance(values, dict):
            raise ValueError(f'{values_json!r} is no JSON object: write {{"name": value}}')
        return self.override_from_dict(values)

    def to_json(
        self,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Returns the hyperparameters as a JSON object, without those that are functions.

        Args:
            indent: Blanks by which a level is indented, or what to write for them; None writes
                one line.
            separators: Separators between items, and between name and value.
            sort_keys: Whether to sort by name.

        Raises:
            TypeError: A value has a type that JSON does not know.
        """
        values = _without_callables(self.values())
        return json.dumps(values, indent=indent, separators=separators, sort_keys=sort_keys)

    def values(self) -> dict[str, Any]:
        """Returns name to value, in the order in which they were added."""
        return {name: getattr(self, name) for name in self._hparam_types}

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the value of a hyperparameter, or a default where there is none.

        Args:
            key: The name.
            default: The result if there is no such hyperparameter. If there is, it has to be
                of its type.

        Raises:
            ValueError: `default` does not fit the hyperparameter's type.
        """
        if key not in self._hparam_types:
            return default
        if default is not None:
            try:
                self._converted(key, default)
            except ValueError as error:
                raise ValueError(
                    f"Hparam {key!r} of type '{self._hparam_types[key]}' is incompatible with "
                    f"default={default!r}: {error}"
                ) from error
        return getattr(self, key)

    def to_proto(self, export_scope: str | None = None) -> HParamDef:
        """Returns the hyperparameters as an `HParamDef`, which stores floats with 32 bits.

        Args:
            export_scope: Not used.

        Raises:
            ValueError: A hyperparameter is no bool, integer, float, text or bytes, or an integer
                has more than 64 bits.
        """
        return pack(self._hparam_types, self.values())

    @staticmethod
    def from_proto(hparam_def: HParamDef, import_scope: str | None = None) -> HParams:
        """Returns the hyperparameters of an `HParamDef`; bytes come as text.

        Args:
            hparam_def: The result of `to_proto`.
            import_scope: Not used.

        Raises:
            ValueError: A hyperparameter has no value, or its name is that of a method.
        """
        return HParams(hparam_def=hparam_def)

    def get_model_structure(self) -> Any:
        """Returns the description of the model, or None."""
        return self._model_structure

    def set_model_structure(self, model_structure: Any) -> None:
        """Sets the description of the model."""
        self._model_structure = model_structure

    def __contains__(self, key: str) -> bool:
        return key in self._hparam_types

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.values().items())

    def __repr__(self) -> str:
        # By name only: two values may not be comparable.
        items = sorted(self.values().items(), key=lambda item: item[0])
        return f"{type(self).__name__}({items})"

    def _add(self, name: str, kind: ParamType, value: Any) -> None:
        if getattr(self, name, None) is not None:
            raise ValueError(
                f"Hyperparameter name is reserved: {name!r} is in use already; take another, or "
                "del_hparam() the old one"
            )
        self._hparam_types[name] = kind
        setattr(self, name, value)

    def _converted(self, name: str, value: Any) -> Any:
        if name not in self._hparam_types:
            known = ", ".join(self._hparam_types) or "none"
            raise KeyError(f"there is no hyperparameter {name!r}; known are: {known}")
        return convert(name, self._hparam_types[name], value)

    def _with_elements(self, name: str, elements: Mapping[int, Any]) -> list[Any]:
        """Returns the list of a hyperparameter with some of its elements replaced."""
        if not self._hparam_types[name].is_list:
            raise ValueError(f"{name!r} is single-valued and has no index: write {name}=value")
        values = list(getattr(self, name))
        for index, value in elements.items():
            if index >= len(values):
                raise ValueError(
                    f"{name}[{index}] does not exist: {name!r} has {len(values)} elements"
                )
            values[index] = value
        return values


def _without_callables(value: Any) -> Any:
    """Removes functions, in lists and dicts of any depth."""
    if isinstance(value, dict):
        return {key: _without_callables(each) for key, each in value.items() if not callable(each)}
    if isinstance(value, list | tuple):
        return [_without_callables(each) for each in value if not callable(each)]
    return value


class Tuner(abc.ABC):
    """A tuning session: trials of an experiment, each with other hyperparameters.

    Only the interface; the service behind it chooses the hyperparameters::

        while tuner.next_trial():
            tuner.run_experiment(experiment_fn)
    """

    @abc.abstractmethod
    def next_trial(self) -> bool:
        """Continues with the next trial.

        Returns:
            True if there is one; otherwise the session is over.
        """

    @abc.abstractmethod
    def run_experiment(self, experiment_fn: Callable[[Any, Any], Any]) -> None:
        """Makes the experiment of this trial, runs it, and reports how good it was.

        Args:
            experiment_fn: Takes the run's configuration and the trial's hyperparameters, usually
                `HParams`, and returns the experiment.
        """
