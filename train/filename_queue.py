"""`string_input_producer`: takes a variable of any kind, as `match_filenames_once` returns."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def string_input_producer(
    string_tensor: Any,
    num_epochs: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    capacity: int = 32,
    shared_name: str | None = None,
    name: str | None = None,
    cancel_op: Any = None,
) -> Any:
    """Puts strings, such as the names of files, into a queue.

    Takes the arguments of `tf.compat.v1.train.string_input_producer`, which refuses resource
    variables, and so the result of `match_filenames_once`.

    Args:
        string_tensor: The strings: a list, a tensor or variable of shape [n].
        num_epochs: How often each string is produced, counted in a local variable; None produces
            them without end.
        shuffle: Whether to shuffle them in each epoch.
        seed: The seed for that.
        capacity: Number of strings that fit in the queue.
        shared_name: If set, the queue is shared under this name between sessions.
        name: Name of the ops.
        cancel_op: Run when the queue is cancelled.

    Returns:
        The queue. A queue runner for it is in the collection `QUEUE_RUNNERS`.

    Raises:
        ValueError: The list is empty.
    """
    if isinstance(string_tensor, tf.Variable):
        string_tensor = string_tensor.read_value()
    return tf.compat.v1.train.string_input_producer(
        string_tensor, num_epochs, shuffle, seed, capacity, shared_name, name, cancel_op
    )
