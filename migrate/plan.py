"""The plan of a migration: the decision for each binding and each use, without text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .bindings import Binding, Use
from .names import canonical, module_place, place

CONTRIB = "tf.contrib"


@dataclass(frozen=True)
class Target:
    """The new text of a use."""

    path: str
    """Replaces the use, except the text after the public name."""
    rest: str
    """The text after the name, which stays: ".restore"."""
    modules: frozenset[str]
    """The modules to import for it."""


class Plan:
    """Decisions for every binding: the name moves as a whole, or its uses move one by one.

    A name may move as a whole: `slim` now stands for `paramserve.contrib.slim`. It does so if all
    of its uses have a place, and some of them one below a module of the same name. Those stay
    unchanged. All other uses that have a place are spelled out, the rest is left, and a name
    without remaining uses is removed.

    Args:
        only_compat: True if the script is for TensorFlow 2, where only the names from
            `tensorflow.compat.v1` belong to TensorFlow 1.
    """

    def __init__(self, *, only_compat: bool) -> None:
        self._only_compat = only_compat
        self._names: dict[Binding, str | None] = {}

    def new_path(self, binding: Binding) -> str | None:
        """Returns the new path of the binding's name; None if it does not move as a whole."""
        if binding not in self._names:
            self._names[binding] = self._decide(binding)
        return self._names[binding]

    def target(self, use: Use) -> Target | None:
        """Returns the new text of a use that is spelled out; None if it has no place."""
        if use.names is not None:
            path = self.new_path(use.names)
            return Target(path, "", self.modules(use.names)) if path else None
        if use.binding.ambiguous or not self._is_old(use.path):
            return None
        path = canonical(use.path)
        placed = place(path)
        if placed is not None:
            return Target(placed[0].path, placed[1], frozenset([placed[0].module]))
        module = module_place(path)
        return Target(module, "", frozenset([module])) if module else None

    def modules(self, binding: Binding) -> frozenset[str]:
        """Returns the modules that the binding's uses need; without uses, the module it names."""
        targets = [self.target(use) for use in binding.uses]
        modules = frozenset[str]().union(*(each.modules for each in targets if each))
        path = self.new_path(binding)
        return modules or (frozenset([path]) if path else modules)

    def is_left(self, use: Use) -> bool:
        """Returns whether a use stays because it has no place."""
        gone = use.names is not None and self.is_gone(use.names)
        return not gone and self.target(use) is None

    def is_gone(self, binding: Binding) -> bool:
        """Returns whether a name is needed no more, and could not be had any more."""
        path = canonical(binding.path)
        if binding.ambiguous or path == "tf" or self.new_path(binding):
            return False
        removed = path == CONTRIB or path.startswith(f"{CONTRIB}.")
        return (removed or bool(binding.uses)) and not any(map(self.is_left, binding.uses))

    def spelled_out(self, bindings: Iterable[Binding]) -> list[tuple[Use, Target]]:
        """Returns the uses to rewrite."""
        found = []
        for binding in bindings:
            new = self.new_path(binding)
            for use in binding.uses:
                target = self.target(use)
                stays = new is not None and _path_before_rest(use, target) == new
                if target is not None and not stays:
                    found.append((use, target))
        return found

    def _is_old(self, path: str) -> bool:
        return not self._only_compat or path.startswith(("tensorflow.compat.v1", "tf_slim"))

    def _decide(self, binding: Binding) -> str | None:
        path = canonical(binding.path)
        if path == "tf" or not self._is_old(binding.path):
            return None
        placed = place(path)
        if placed is not None:
            return None if placed[1] else placed[0].path
        if binding.ambiguous:
            return None
        if not binding.uses:
            # An assignment may serve other modules; an unused import does not.
            return module_place(path) if binding.sites[0].alias is None else None
        targets = {use: self.target(use) for use in binding.uses}
        if None in targets.values():
            return None
        found = {_path_before_rest(use, target) for use, target in targets.items()}
        same_name = {new for new in found if new.rpartition(".")[2] == path.rpartition(".")[2]}
        return same_name.pop() if len(same_name) == 1 else None


def _path_before_rest(use: Use, target: Target | None) -> str:
    """Returns the path of a binding with which the use could stay; "" if there is none."""
    path = target.path + target.rest if target else ""
    return path.removesuffix(use.rest) if path.endswith(use.rest) else ""
