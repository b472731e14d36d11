"""Repeated runs of a session, prepared once, as `Session.make_callable` does.

A session analyses the fetches of each run again, which costs about as much as a hundred ops do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# A loop has few different runs: with a summary and without, for example.
MOST_RUNS = 16

_SINGLE = (tf.Tensor, tf.Operation, tf.Variable, str)


class RepeatedRuns:
    """The prepared runs of one session.

    Args:
        make_callable: The session's own.

    Attributes:
        newest: The fetches of the newest one; None if there was none.
    """

    def __init__(self, make_callable: Callable[[Any], Callable[[], Any]]) -> None:
        self._make_callable = make_callable
        # The fetches are kept, so that no other object takes over the identity of one of them.
        self._runs: dict[Any, tuple[Any, Callable[[], Any]]] = {}
        self.newest: Any = None

    def add(self, fetches: Any, run: Callable[[], Any]) -> None:
        """Uses a run for these fetches from now on."""
        self._runs[_key(fetches)] = fetches, run

    def find(self, fetches: Any) -> Callable[[], Any] | None:
        """Returns a function that runs these fetches; None if they have no simple structure."""
        key = _key(fetches)
        if key is None:
            return None
        found = self._runs.get(key)
        if found is None:
            if _is_empty(fetches):
                return None  # A prepared run has to run something.
            if len(self._runs) >= MOST_RUNS:
                self._runs.clear()
            found = self._runs[key] = fetches, self._make_callable(fetches)
        self.newest = fetches
        return found[1]


def _key(fetches: Any) -> Any:
    """Returns a key that is equal for equal fetches; None if they cannot be compared."""
    if isinstance(fetches, str):
        return fetches
    if isinstance(fetches, _SINGLE):
        return id(fetches)
    if type(fetches) is dict:
        keys = [(name, _key(each)) for name, each in fetches.items()]
        return None if any(key is None for _, key in keys) else (dict, *keys)
    if type(fetches) in (list, tuple):
        keys = [_key(each) for each in fetches]
        return None if None in keys else (type(fetches), *keys)
    return None


def _is_empty(fetches: Any) -> bool:
    if isinstance(fetches, dict):
        return all(map(_is_empty, fetches.values()))
    return isinstance(fetches, (list, tuple)) and all(map(_is_empty, fetches))
