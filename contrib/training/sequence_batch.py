"""One batch of pieces of sequences, the way back for their states, and where they wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from .queue_elements import unpack_batch
from .sequence_pieces import CONTEXT, SEQUENCE, STATE


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

    Attributes:
        barrier_ref: The handle, a string reference tensor.
        name: Name of the op that makes the barrier.
    """

    def __init__(self, components: Mapping[str, tf.TensorSpec], name: str = "barrier") -> None:
        self._components = dict(components)
        self._index = {component: index for index, component in enumerate(components)}
        self._dtypes = [spec.dtype for spec in self._components.values()]
        # A reference: it cannot enter a branch or a loop of control flow v2, but the ops that use
        # it are placed with it.
        self.barrier_ref: Any = tf.raw_ops.Barrier(
            component_types=self._dtypes,
            shapes=[spec.shape for spec in self._components.values()],
            name=name,
        )
        self.name = str(self.barrier_ref.op.name)

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
        with self.barrier_ref.graph.as_default():
            return tf.raw_ops.BarrierInsertMany(
                handle=self.barrier_ref,
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
        with self.barrier_ref.graph.as_default():
            taken = tf.raw_ops.BarrierTakeMany(
                handle=self.barrier_ref,
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
        with self.barrier_ref.graph.as_default():
            return tf.raw_ops.BarrierClose(
                handle=self.barrier_ref, cancel_pending_enqueues=cancel_pending_enqueues, name=name
            )

    def ready_size(self, name: str | None = None) -> Any:
        """Returns the number of complete elements, an int32 scalar tensor."""
        with self.barrier_ref.graph.as_default():
            return tf.raw_ops.BarrierReadySize(handle=self.barrier_ref, name=name)

    def incomplete_size(self, name: str | None = None) -> Any:
        """Returns the number of elements that lack components, an int32 scalar tensor."""
        with self.barrier_ref.graph.as_default():
            return tf.raw_ops.BarrierIncompleteSize(handle=self.barrier_ref, name=name)


if TYPE_CHECKING:
    from .sequence_queueing import SequenceQueueingStateSaver


class NextQueuedSequenceBatch:
    """The next batch of pieces that a `SequenceQueueingStateSaver` has ready.

    Get it from the state saver's `next_batch`. Each run of the session that evaluates any of its
    tensors takes one batch; all tensors evaluated in one run are of the same batch. Here
    `batch size` is the requested size, or less at the end with `allow_small_batch`.

    Args:
        state_saver: The source of the pieces.

    Attributes:
        total_length: Number of steps of the whole sequences, without padding: int32, shape [batch
            size].
        length: Number of steps in the pieces, without padding: int32, shape [batch size]. It is
            `num_unroll` but for the last pieces, where it is between 0 and `num_unroll`.
        batch_size: Number of pieces in the batch, an int32 scalar tensor.
        insertion_index: When the sequences came, counted from -2**63: int64, shape [batch size].
            All pieces of a sequence have the same index. Pieces with a lower one are taken first,
            so that a sequence that has begun continues before a new one begins.
        key: Keys of the pieces: string, shape [batch size]. The form is "%05d_of_%05d:%s" %
            (sequence, sequence_count, input_key).
        next_key: Keys of the pieces that come next: string, shape [batch size]. The form is that of
            `key`, or "STOP:%s" % input_key after the last piece.
        sequence: Indices of the pieces in their sequences: int32, shape [batch size].
        sequence_count: Number of pieces of their sequences: int32, shape [batch size].
        context: The context of each piece's sequence: tensors of shape [batch size, ...], by name.
            A `tf.SparseTensor` stays one.
        sequences: The pieces: tensors of shape [batch size, num_unroll, ...], by name. A sequence
            that is a `tf.SparseTensor` has pieces that are one.
    """

    def __init__(self, state_saver: SequenceQueueingStateSaver) -> None:
        self._state_saver = state_saver
        taken = state_saver.take_pieces()
        example, self._values = state_saver.example, taken.values
        self.total_length: Any = self._values["total_length"]
        self.length: Any = self._values["length"]
        self.insertion_index: Any = taken.insertion_index
        self.key: Any = taken.key
        self.next_key: Any = self._values["next_key"]
        self.sequence: Any = self._values["sequence"]
        self.sequence_count: Any = self._values["sequence_count"]
        # All ops are made here: later the graph may be finalized, or another one the default.
        self.batch_size: Any = tf.shape(self.key)[0]
        self.context, self.sequences = (
            {name: unpack_batch(self._values[prefix + name], like) for name, like in given.items()}
            for prefix, given in ((CONTEXT, example.context), (SEQUENCE, example.sequences))
        )

    def state(self, state_name: str) -> Any:
        """Returns the states before the pieces' first steps.

        Args:
            state_name: One of the names in `initial_states`.

        Returns:
            A tensor of shape [batch size, ...]: the state that `save_state` stored with the
            previous
            piece, or the initial state for a first piece.

        Raises:
            KeyError: There is no such state.
        """
        self._check_declared(state_name)
        return self._values[STATE + state_name]

    def save_state(self, state_name: str, value: Any, name: str | None = None) -> tf.Operation:
        """Returns an op that stores the states after the pieces' last steps.

        Every run that takes a batch has to run it too, for each of the states: a sequence continues
        only when all states of its next piece are stored. For last pieces nothing is stored.

        Args:
            state_name: One of the names in `initial_states`.
            value: A tensor of shape [batch size, ...] and of the initial state's dtype.
            name: Name scope of the ops.

        Raises:
            KeyError: There is no such state.
            ValueError: Shape or dtype are not those of the initial state.
            tf.errors.InvalidArgumentError: The shape is another one (when the op is run).
        """
        self._check_declared(state_name)
        initial = self._state_saver.example.states[state_name]
        scope = tf.compat.v1.name_scope(name, f"save_{state_name}")
        with self.key.graph.as_default(), scope:
            value = tf.convert_to_tensor(value, initial.dtype)
            expected = tf.TensorShape([None]).concatenate(initial.shape)
            if not value.shape.is_compatible_with(expected):
                raise ValueError(
                    f"the state {state_name!r} has the shape {value.shape}: expected "
                    f"{expected}, the batch size and the shape of the initial state"
                )
            size = tf.shape(tf.ensure_shape(value, expected))[0]
            message = f"the states {state_name!r} should be as many as the pieces, but are:"
            right = tf.equal(size, self.batch_size)
            check = tf.debugging.Assert(right, [message, size, self.batch_size])
            with tf.control_dependencies([check]):
                value = tf.identity(value)
            goes_on = self.sequence + 1 < self.sequence_count
            return self._state_saver.barrier.insert_many(
                STATE + state_name,
                keys=tf.boolean_mask(self.next_key, goes_on),
                values=tf.boolean_mask(value, goes_on),
            )

    def _check_declared(self, state_name: str) -> None:
        states = self._state_saver.example.states
        if state_name not in states:
            raise KeyError(
                f"state was not declared: {state_name!r}, the names in initial_states are "
                f"{sorted(states)}"
            )
