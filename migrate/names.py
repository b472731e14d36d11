"""Places of TensorFlow 1's names now: the mapping in `names.toml`, and lookups in it."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any, NamedTuple

_DATA: dict[str, Any] = tomllib.loads(
    resources.files(__package__).joinpath("names.toml").read_text()
)
REMEDIES: dict[str, str] = _DATA["remedies"]
"""The remedies for names without a place, by the longest listed prefix."""


class Namespace(NamedTuple):
    """A module of TensorFlow 1 with names that exist in a module of `paramserve`."""

    old: str
    """The module as scripts wrote it, with `tf` for TensorFlow: "tf.contrib.training"."""
    new: str
    """The module to import now: "paramserve.contrib.training"."""
    names: tuple[str, ...]
    """The moved names, the same in both modules."""
    whole: bool = True
    """Everything public of the old module moved, so the module itself may be passed around."""


class Place(NamedTuple):
    """The present place of a name."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """Module and name: "paramserve.train.Saver"."""
        return f"{self.module}.{self.name}"


NAMESPACES = tuple(
    Namespace(each["old"], each["new"], tuple(each["names"].split()), not each.get("partly"))
    for each in _DATA["namespace"]
)
"""Every module whose names have a place in paramserve."""

_RESPELLED: dict[str, str] = _DATA["respelled"] | {
    f"{each['folder']}.{file}": each["public"]
    for each in _DATA["files"]
    for file in each["files"].split()
}

_PLACES = {
    f"{namespace.old}.{name}": Place(namespace.new, name)
    for namespace in NAMESPACES
    for name in namespace.names
}

_MODULES = {namespace.old: namespace.new for namespace in NAMESPACES if namespace.whole}


def canonical(path: str) -> str:
    """Returns the public name, beginning with `tf`, for any way of writing it.

    "tensorflow.compat.v1.train.Saver" is "tf.train.Saver";
    "tensorflow.contrib.model_pruning.python.pruning.Pruning" is "tf.contrib.model_pruning.Pruning".
    """
    for prefix in _prefixes(path):
        if prefix in _RESPELLED:
            return canonical(_RESPELLED[prefix] + path[len(prefix) :])
    return path


def place(path: str) -> tuple[Place, str] | None:
    """Finds the present place of a canonical path.

    Args:
        path: A path made `canonical`; it may continue beyond a public name, as
            "tf.train.Saver.restore" does.

    Returns:
        The place of the name in it, and the rest (".restore"); None if it has none.
    """
    for prefix in _prefixes(path):
        if prefix in _PLACES:
            return _PLACES[prefix], path[len(prefix) :]
    return None


def module_place(path: str) -> str | None:
    """Returns the present place of a whole module; None if it, or a part of it, has none."""
    return _MODULES.get(path)


def _prefixes(path: str) -> list[str]:
    """Returns the path and its parents, longest first."""
    parts = path.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
