"""What a name in a graph stands for."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_VARIABLE_KEYS = (
    tf.compat.v1.GraphKeys.GLOBAL_VARIABLES,
    tf.compat.v1.GraphKeys.LOCAL_VARIABLES,
)


def resolve(fetch: Any, graph: tf.Graph) -> Any:
    """Returns what to fetch for `fetch`: a variable, if it is the name of one.

    The name of a resource variable is that of its handle, whose value is an address.

    Args:
        fetch: Anything that can be fetched. Names may have the output's index ("weight:0") or, for
            variables, not.
        graph: Where to look for names.
    """
    if not isinstance(fetch, str):
        return fetch
    for key in _VARIABLE_KEYS:
        for variable in graph.get_collection(key):
            if fetch in (variable.name, variable.op.name):
                return variable
    return fetch
