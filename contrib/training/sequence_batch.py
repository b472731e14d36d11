"""One batch of pieces of sequences, and the way back for their states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from .queue_elements import unpack_batch
from .sequence_pieces import CONTEXT, SEQUENCE, STATE

if TYPE_CHECKING:
    from .sequence_queueing import SequenceQueueingStateSaver


class NextQueuedSequenceBatch:
    """The next batch of pieces that a `SequenceQueueingStateSaver` has ready.

    Get it from the state saver's `next_batch`. Each run of the session that evaluates any of its
    tensors takes one batch; all tensors evaluated in one run are of the same batch. Here
    `batch size` is the requested size, or less at the end with `allow_small_batch`.

    Args:
        state_saver: The source of the pieces.
    """

    def __init__(self, state_saver: SequenceQueueingStateSaver) -> None:
        self._state_saver = state_saver
        self._taken = state_saver.take_pieces()
        # All ops are made here: later the graph may be finalized, or another one the default.
        self._batch_size = tf.shape(self._taken.key)[0]
        example, values = state_saver.example, self._taken.values
        self._context, self._sequences = (
            {name: unpack_batch(values[prefix + name], like) for name, like in inputs.items()}
            for prefix, inputs in ((CONTEXT, example.context), (SEQUENCE, example.sequences))
        )

    @property
    def total_length(self) -> Any:
        """Number of steps of the whole sequences, without padding: int32, shape [batch size]."""
        return self._taken.values["total_length"]

    @property
    def length(self) -> Any:
        """Number of steps in the pieces, without padding: int32, shape [batch size].

        It is `num_unroll` but for the last pieces, where it is between 0 and `num_unroll`.
        """
        return self._taken.values["length"]

    @property
    def batch_size(self) -> Any:
        """Number of pieces in the batch, an int32 scalar tensor."""
        return self._batch_size

    @property
    def insertion_index(self) -> Any:
        """Order of the sequences' arrival, counted from -2**63: int64, shape [batch size].

        All pieces of a sequence have the same index. Pieces with a lower one are taken first, so
        that a sequence that has begun continues before a new one begins.
        """
        return self._taken.insertion_index

    @property
    def key(self) -> Any:
        """Keys of the pieces: string, shape [batch size].

        The form is "%05d_of_%05d:%s" % (sequence, sequence_count, input_key).
        """
        return self._taken.key

    @property
    def next_key(self) -> Any:
        """Keys of the pieces that come next: string, shape [batch size].

        The form is that of `key`, or "STOP:%s" % input_key after the last piece.
        """
        return self._taken.values["next_key"]

    @property
    def sequence(self) -> Any:
        """Indices of the pieces in their sequences: int32, shape [batch size]."""
        return self._taken.values["sequence"]

    @property
    def sequence_count(self) -> Any:
        """Number of pieces of their sequences: int32, shape [batch size]."""
        return self._taken.values["sequence_count"]

    @property
    def context(self) -> dict[str, Any]:
        """The context of each piece's sequence: tensors of shape [batch size, ...], by name.

        A `tf.SparseTensor` stays one.
        """
        return dict(self._context)

    @property
    def sequences(self) -> dict[str, Any]:
        """The pieces: tensors of shape [batch size, num_unroll, ...], by name.

        A sequence that is a `tf.SparseTensor` has pieces that are one.
        """
        return dict(self._sequences)

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
        return self._taken.values[STATE + state_name]

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
        with self._taken.key.graph.as_default(), scope:
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
