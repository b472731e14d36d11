"""Input that is made once in a process, whichever of its sessions read it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import UsageError

# As `Dataset.take` takes it.
_ALL, _NONE = np.int64(-1), np.int64(0)


def make_cached(dataset: Any) -> Any:
    """Makes a dataset with the elements of another one, which are kept when they were all made.

    Args:
        dataset: A finite `tf.data.Dataset` of dense tensors.

    Raises:
        UsageError: Its elements are no dense tensors.
    """
    flat_spec = tf.nest.flatten(dataset.element_spec)
    for each in flat_spec:
        if not isinstance(each, tf.TensorSpec):
            raise UsageError(f"cached(): expected elements of dense tensors, not {each}")
    store = _Store()

    def choose(_: Any) -> Any:
        reading = tf.numpy_function(store.begin, [], tf.int64)
        reading.set_shape([])
        is_made = reading < 0

        def keep(*element: Any) -> Any:
            flat = tf.nest.flatten(element[0] if len(element) == 1 else element)
            with tf.control_dependencies([tf.numpy_function(store.add, [reading, *flat], [])]):
                return tuple(tf.identity(each) for each in flat)

        def note_end(_: Any) -> Any:
            return tf.numpy_function(store.end, [reading], tf.bool)

        made = tf.data.Dataset.from_generator(store.read, output_signature=tuple(flat_spec))
        end = tf.data.Dataset.range(1).filter(note_end).flat_map(lambda _: made.take(0))
        making = dataset.map(keep).concatenate(end)
        return made.take(tf.where(is_made, _ALL, _NONE)).concatenate(
            making.take(tf.where(is_made, _NONE, _ALL))
        )

    def pack(*flat: Any) -> Any:
        return tf.nest.pack_sequence_as(dataset.element_spec, flat)

    return tf.data.Dataset.range(1).flat_map(choose).map(pack)


class _Store:
    """The elements, and who is making them; iterators of several sessions may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._elements: list[tuple[Any, ...]] = []
        self._is_whole = False
        self._reading = 0

    def begin(self) -> int:
        """The number of a reading, which has to make the elements; -1 if they are all there."""
        with self._lock:
            if self._is_whole:
                return -1
            self._reading += 1
            self._elements = []
            return self._reading

    def add(self, reading: int, *element: Any) -> None:
        """Takes an element, if no other reading has begun since."""
        with self._lock:
            if reading == self._reading and not self._is_whole:
                self._elements.append(element)

    def end(self, reading: int) -> bool:
        """Notes that a reading has made all elements; false, as there is nothing to read then."""
        with self._lock:
            self._is_whole |= reading == self._reading
        return False

    def read(self) -> Iterator[tuple[Any, ...]]:
        """The elements, once they are all there."""
        yield from self._elements
