"""Long sequences in batches of pieces, read by threads: `batch_sequences_with_states`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import tensorflow as tf

from .queue_elements import add_queue_runner, checked_count, require_graph
from .sequence_batch import NextQueuedSequenceBatch
from .sequence_pieces import SequenceInput, pad_to_multiple, padded_length
from .sequence_state_saver import SequenceQueueingStateSaver

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

    This makes a `SequenceQueueingStateSaver`, where more is said, and a queue runner for it.

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
