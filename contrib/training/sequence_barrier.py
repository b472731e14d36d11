"""TensorFlow's barrier, in which keyed elements wait until all of their components are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class TakenElements:
    """The result of one `Barrier.take_many`.

    Attributes:
        insertion_index: Number of the call of `insert_many` that brought each element's key, from
            -2**63: int64, shape [count].
        key: The elements' keys: string, shape [count].
        values: The elements' components by name, each of shape [count, ...].
    """

    insertion_index: Any
    key: Any
    values: dict[str, Any]

    def only(self, mask: Any, static_count: int | None) -> TakenElements:
        """Returns the elements for which `mask` is true.

        Args:
            mask: A bool tensor of shape [count].
            static_count: How many these are, if that is known.
        """

        def choose(tensor: Any) -> Any:
            chosen = tf.boolean_mask(tensor, mask)
            chosen.set_shape(tf.TensorShape([static_count]).concatenate(tensor.shape[1:]))
            return chosen

        values = {name: choose(value) for name, value in self.values.items()}
        return TakenElements(choose(self.insertion_index), choose(self.key), values)


class Barrier:
    """A map whose elements can be taken as soon as each of their components was inserted.

    Elements are taken in the order in which their keys were inserted first. (TensorFlow's Python
    class for this has no public name; this one is over its public ops.) Ops are added to the
    barrier's own graph, in any thread.

    Args:
        components: Shape and dtype of each component, by name; shapes fully defined.
        name: Name of the op.
    """

    def __init__(self, components: Mapping[str, tf.TensorSpec], name: str = "barrier") -> None:
        self._components = dict(components)
        self._index = {component: index for index, component in enumerate(components)}
        self._dtypes = [spec.dtype for spec in self._components.values()]
        # A reference: it cannot enter a branch or a loop of control flow v2, but the ops that use
        # it are placed with it.
        self._handle = tf.raw_ops.Barrier(
            component_types=self._dtypes,
            shapes=[spec.shape for spec in self._components.values()],
            name=name,
        )

    @property
    def barrier_ref(self) -> Any:
        """The handle, a string reference tensor."""
        return self._handle

    @property
    def name(self) -> str:
        """Name of the op that makes the barrier."""
        return str(self._handle.op.name)

    def insert_many(
        self, component: str, keys: Any, values: Any, name: str | None = None
    ) -> tf.Operation:
        """Returns an op that inserts one component of some elements.

        Args:
            component: Name of the component.
            keys: Keys of the elements: string, shape [count].
            values: The component's values, shape [count, ...].
            name: Name of the op.

        When run, it raises `tf.errors.InvalidArgumentError` if an element has this component
        already, and `tf.errors.CancelledError` if a key is new and the barrier is closed.
        """
        with self._handle.graph.as_default():
            return tf.raw_ops.BarrierInsertMany(
                handle=self._handle,
                keys=keys,
                values=values,
                component_index=self._index[component],
                name=name,
            )

    def take_many(
        self, num_elements: Any, allow_small_batch: bool = False, name: str | None = None
    ) -> TakenElements:
        """Returns tensors that take complete elements, and wait for them.

        Args:
            num_elements: How many to take, an int or an int32 scalar tensor.
            allow_small_batch: Whether to take fewer, but at least one, from a closed barrier.
            name: Name of the op.

        When evaluated, they raise `tf.errors.OutOfRangeError` if the barrier is closed and has
        not enough complete elements. If it is closed only while they wait, they continue to wait,
        also with `allow_small_batch`, until there are enough or no element is incomplete.
        """
        with self._handle.graph.as_default():
            taken = tf.raw_ops.BarrierTakeMany(
                handle=self._handle,
                num_elements=num_elements,
                component_types=self._dtypes,
                allow_small_batch=allow_small_batch,
                name=name,
            )
        count = None if allow_small_batch else tf.get_static_value(num_elements)
        count = None if count is None else int(count)
        values = {}
        for (component, spec), value in zip(self._components.items(), taken.values, strict=True):
            value.set_shape(tf.TensorShape([count]).concatenate(spec.shape))
            values[component] = value
        taken.indices.set_shape([count])
        taken.keys.set_shape([count])
        return TakenElements(taken.indices, taken.keys, values)

    def close(self, cancel_pending_enqueues: bool = False, name: str | None = None) -> tf.Operation:
        """Returns an op that refuses new keys from now on, and with True new components as well.

        Run it once only: on a closed barrier without incomplete elements, the op with True never
        ends, and then the session cannot be closed either.
        """
        with self._handle.graph.as_default():
            return tf.raw_ops.BarrierClose(
                handle=self._handle, cancel_pending_enqueues=cancel_pending_enqueues, name=name
            )

    def ready_size(self, name: str | None = None) -> Any:
        """Returns the number of complete elements, an int32 scalar tensor."""
        with self._handle.graph.as_default():
            return tf.raw_ops.BarrierReadySize(handle=self._handle, name=name)

    def incomplete_size(self, name: str | None = None) -> Any:
        """Returns the number of elements that lack components, an int32 scalar tensor."""
        with self._handle.graph.as_default():
            return tf.raw_ops.BarrierIncompleteSize(handle=self._handle, name=name)
