"""Queues of pieces of long sequences, which wait for their states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import tensorflow as tf

from .queue_elements import add_queue_runner, as_scalar, checked_count, require_graph
from .sequence_batch import Barrier, NextQueuedSequenceBatch, TakenElements
from .sequence_pieces import SequenceInput, cut, fillers, pad_to_multiple, padded_length


class SequenceQueueingStateSaver:
    """Cuts sequences into pieces, batches these, and keeps the states between them.

    This is for truncated backpropagation through time. Each run of `prefetch_op` brings one
    example; run it in a `tf.compat.v1.train.QueueRunner`, as `batch_sequences_with_states` does.
    Each batch has at most one piece of a sequence: the next one is ready once `save_state` of
    `next_batch` has stored all states that it starts with. (Without states nothing is waited for.)

    When the input has ended, the queue runner closes the state saver. Then the sequences that have
    begun continue. Evaluating `next_batch` raises `tf.errors.OutOfRangeError` when they are done.
    Without `allow_small_batch`, it does so when fewer than `batch_size` of them are left.

    Run one step after the other: to a step that runs beside another one, and finds no piece ready
    since the other has them all, the input has ended too.

    Example::

        state_saver = SequenceQueueingStateSaver(
            batch_size=32,
            num_unroll=20,
            input_length=length,
            input_key=key,
            input_sequences={"words": words},
            input_context={"label": label},
            initial_states={"lstm": tf.zeros([8])},
            capacity=1000,
        )
        batch = state_saver.next_batch
        output, state = run_cell(batch.sequences["words"], batch.state("lstm"))
        train_op = tf.group(train(output, batch.context["label"]), batch.save_state("lstm", state))

    Args:
        batch_size: Number of pieces in a batch, an int or an int32 scalar tensor.
        num_unroll: Number of steps in a piece, at least 1.
        input_length: Number of steps of the sequences before they were padded: int32, scalar; at
            most the number of steps that they have.
        input_key: Name of the example, different for all examples that are in here at a time:
            string, scalar.
        input_sequences: A dictionary of tensors of shape [steps, ...]: the number of steps is a
            multiple of `num_unroll` and may vary between examples, the rest of the shape is
            known. Some may be `tf.SparseTensor`s.
        input_context: A dictionary of tensors of known shape, or `tf.SparseTensor`s, which come
            with each piece.
        initial_states: A dictionary of tensors of known shape, with which first pieces start.
        capacity: Number of examples that can be in here at a time, at least `batch_size`;
            `prefetch_op`
            waits if there are more. An example leaves with its last piece. None is no limit.
        allow_small_batch: Whether batches may be smaller when the input has ended.
        name: Name scope of the ops.

    Attributes:
        barrier: The store of the waiting pieces.
        batch_size: Number of pieces in a full batch.
        num_unroll: Number of steps in a piece.
        example: The example that a run of `prefetch_op` brings.
        prefetch_op: An op that brings one example, and waits for a place for it. An example without
            steps has no pieces, and is skipped.
        next_batch: The next batch of pieces; the same object each time.

    Raises:
        TypeError: An input has not the type or dtype it should have, or a dictionary's key is no
            string.
        ValueError: A shape is not known well enough, a dictionary's key contains ":", there is no
            sequence, or `capacity` is less than `batch_size`.
        tf.errors.InvalidArgumentError: `capacity` is less than `batch_size`, a tensor.
        RuntimeError: Eager execution is on.
    """

    def __init__(
        self,
        batch_size: Any,
        num_unroll: int,
        input_length: Any,
        input_key: Any,
        input_sequences: Mapping[str, Any],
        input_context: Mapping[str, Any],
        initial_states: Mapping[str, Any],
        capacity: int | None = None,
        allow_small_batch: bool = False,
        name: str | None = None,
    ) -> None:
        require_graph("SequenceQueueingStateSaver")
        self.num_unroll = checked_count("num_unroll", num_unroll)
        self._allow_small_batch = allow_small_batch
        self._capacity = capacity
        with tf.compat.v1.name_scope(name, "SequenceQueueingStateSaver") as scope:
            self._scope = scope
            self.batch_size = batch_size
            self._batch_size = _as_batch_size(batch_size)
            _check_capacity(capacity, batch_size)
            self.example = SequenceInput.checked(
                input_length, input_key, input_sequences, input_context, initial_states
            )
            self._specs = self.example.specs(self.num_unroll)
            self.barrier = Barrier(self._specs)
            # Never has an element: it is there to be closed, before the barrier.
            self._input = tf.queue.FIFOQueue(1, tf.bool, [[]], name="input")
            # Holds as many elements as there are examples in here.
            self._places: Any = None
            if capacity is not None:
                self._places = tf.queue.FIFOQueue(capacity, tf.bool, [[]], name="places")
            self.prefetch_op = self._make_prefetch_op()
            self.next_batch = NextQueuedSequenceBatch(self)

    @property
    def name(self) -> str:
        """Name scope of the ops."""
        return str(self._scope).rstrip("/")

    def take_pieces(self) -> TakenElements:
        """Returns tensors that take one batch of pieces; `next_batch` interprets them.

        Returns:
            The pieces. Evaluating any of the tensors frees the places of examples that end.
        """
        taken = self.barrier.take_many(self._batch_size, allow_small_batch=True, name="take_pieces")
        is_piece = taken.values["sequence_count"] > 0
        num_pieces = _count(is_piece)
        fewest = 1 if self._allow_small_batch else self._batch_size
        # There are too few only after the end of the input, where this raises an error.
        too_few = tf.cast(num_pieces < fewest, tf.int32)
        before = [self._input.dequeue_many(too_few).op]
        if self._places is not None:
            is_last = tf.equal(taken.values["sequence"] + 1, taken.values["sequence_count"])
            before.append(self._places.dequeue_many(_count(is_last)).op)
        static = None if self._allow_small_batch else tf.get_static_value(self._batch_size)
        with tf.control_dependencies(before):
            return taken.only(tf.identity(is_piece), None if static is None else int(static))

    def close(self, cancel_pending_enqueues: bool = False, name: str | None = None) -> tf.Operation:
        """Returns an op after which no more examples come in.

        Args:
            cancel_pending_enqueues: Whether also to give up the sequences that have begun, unless
                this was closed before, and examples that wait for a place.
            name: Name scope of the ops.

        When it is run again, it raises `tf.errors.CancelledError`.
        """
        scope = tf.compat.v1.name_scope(name or f"{self._scope}close/")
        with self._input.queue_ref.graph.as_default(), scope:
            closed = []
            if self._places is not None:
                closed.append(self._places.close(cancel_pending_enqueues))
            # A queue that is closed twice raises an error, so that the barrier is not.
            with tf.control_dependencies(closed):
                closed = [self._input.close()]
            with tf.control_dependencies(closed):
                if cancel_pending_enqueues:
                    return tf.group(self.barrier.close(cancel_pending_enqueues=True))
                return self._close_and_fill()

    def _close_and_fill(self) -> tf.Operation:
        """Closes the barrier, and brings so many fillers that a step that waits gets a batch.

        Otherwise it would wait without end: the sequences continue only when it has got a batch.
        """
        filler = fillers(self._specs, self._most_taken())
        # A closed barrier takes no new keys, so that the last component only is left for later.
        *early, late = filler.components
        inserts = [
            self.barrier.insert_many(name, filler.keys, filler.components[name]) for name in early
        ]
        with tf.control_dependencies(inserts):
            closed = self.barrier.close()
        with tf.control_dependencies([closed]):
            return self.barrier.insert_many(late, filler.keys, filler.components[late])

    def _most_taken(self) -> Any:
        """Returns at least `batch_size`; a queue runner cannot use a tensor that has to be fed."""
        if tf.get_static_value(self._batch_size) is None and self._capacity is not None:
            return tf.constant(self._capacity)
        return self._batch_size

    def _make_prefetch_op(self) -> tf.Operation:
        # If one input ends before the others, nothing of the example must be in the barrier.
        with tf.control_dependencies(self.example.all_tensors()):
            pieces = cut(self.example, self.num_unroll)
        before: list[Any] = [pieces.count]
        if self._places is not None:
            has_pieces = tf.fill([tf.minimum(pieces.count, 1)], True)
            before.append(self._places.enqueue_many([has_pieces]))
        # The first op brings all keys, so that they get the same insertion index.
        first, *rest = pieces.components
        with tf.control_dependencies(before):
            insert = [self.barrier.insert_many(first, pieces.keys, pieces.components[first])]
        with tf.control_dependencies(insert):
            for name in rest:
                values = pieces.components[name]
                keys = pieces.keys[: tf.shape(values)[0]]
                insert.append(self.barrier.insert_many(name, keys, values))
        return tf.group(*insert, name="prefetch")


def _count(mask: Any) -> Any:
    return tf.reduce_sum(tf.cast(mask, tf.int32))


def _as_batch_size(batch_size: Any) -> Any:
    tensor = as_scalar(batch_size, "batch_size")
    if tensor.dtype != tf.int32:
        raise TypeError(f"batch_size has dtype {tensor.dtype.name}: expected int32")
    return tensor


def _check_capacity(capacity: Any, batch_size: Any) -> None:
    if capacity is None:
        return
    checked_count("capacity", capacity)
    static = tf.get_static_value(batch_size) if tf.is_tensor(batch_size) else batch_size
    if static is None or capacity >= static:
        return
    message = f"capacity {capacity} needs to be >= batch_size {static}: no batch would be full"
    if tf.is_tensor(batch_size):
        raise tf.errors.InvalidArgumentError(None, None, message)
    raise ValueError(message)


__all__ = ["NextQueuedSequenceBatch", "SequenceQueueingStateSaver", "batch_sequences_with_states"]


def batch_sequences_with_states(
    input_key: Any,
    input_sequences: Mapping[str, Any],
    input_context: Mapping[str, Any],
    input_length: Any,
    initial_states: Mapping[str, Any],
    num_unroll: int,
    batch_size: Any,
    num_threads: int = 3,
    capacity: int = 1000,
    allow_small_batch: bool = True,
    pad: bool = True,
    make_keys_unique: bool = False,
    make_keys_unique_seed: int | None = None,
    name: str | None = None,
) -> NextQueuedSequenceBatch:
    """Batches pieces of sequences, read by threads, with states carried from piece to piece.

    This makes a `SequenceQueueingStateSaver`, which documents more, and a queue runner for it.

    Example::

        batch = batch_sequences_with_states(
            input_key=key,
            input_sequences={"words": words},
            input_context={"label": label},
            input_length=None,
            initial_states={"lstm": tf.zeros([8])},
            num_unroll=20,
            batch_size=32,
        )
        output, state = run_cell(batch.sequences["words"], batch.state("lstm"))
        train_op = tf.group(train(output, batch.context["label"]), batch.save_state("lstm", state))

    Further arguments are those of the state saver, where `allow_small_batch` is false by default.

    * `input_length`: None, with `pad`, means the number of steps that `input_sequences` have: the
      dense ones, if there are any.
    * `num_threads`: Number of threads that read examples.
    * `capacity`: If keys come again (in the next epoch), it has to be less than the number of
      examples.
    * `pad`: Whether to append zeros or "" to the sequences, up to a multiple of `num_unroll`.
      Without it, their numbers of steps have to be multiples already.
    * `make_keys_unique`: Whether to append ":" and a random number to each key, of the seed
      `make_keys_unique_seed`.

    Returns:
        The next batch of pieces.

    Raises:
        TypeError: As for `SequenceQueueingStateSaver`.
        ValueError: As for it, or `input_length` is None although `pad` is false.
        RuntimeError: Eager execution is on.
    """
    require_graph("batch_sequences_with_states")
    if input_length is None and not pad:
        raise ValueError("input_length is None: it must be given if pad=False")
    with tf.compat.v1.name_scope(name, "batch_sequences_with_states"):
        example = SequenceInput.checked(
            0 if input_length is None else input_length,
            input_key,
            input_sequences,
            input_context,
            initial_states,
        )
        if pad:
            example = _padded(example, num_unroll, infer_length=input_length is None)
        key = example.key
        if make_keys_unique:
            number = tf.random.uniform(
                [], maxval=tf.int64.max, dtype=tf.int64, seed=make_keys_unique_seed
            )
            key = tf.strings.join([key, ":", tf.strings.as_string(number)])
        state_saver = SequenceQueueingStateSaver(
            batch_size=batch_size,
            num_unroll=num_unroll,
            input_length=example.length,
            input_key=key,
            input_sequences=example.sequences,
            input_context=example.context,
            initial_states=example.states,
            capacity=capacity,
            allow_small_batch=allow_small_batch,
        )
        tf.compat.v1.summary.scalar("ready_pieces", state_saver.barrier.ready_size())
        add_queue_runner(state_saver, [state_saver.prefetch_op] * num_threads)
        return state_saver.next_batch


def _padded(example: SequenceInput, num_unroll: int, infer_length: bool) -> SequenceInput:
    steps = padded_length(example.sequences)
    # After padding, lengths that differ may look alike.
    with tf.control_dependencies([steps]):
        padded = pad_to_multiple(example.sequences, steps, checked_count("num_unroll", num_unroll))
    length = steps if infer_length else example.length
    return replace(example, length=length, sequences=padded)
