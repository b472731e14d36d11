"""One sequence with its context and states, checked and cut into pieces of equal length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from .queue_elements import PACKED_SPARSE_SHAPE, as_scalar, pack

# Prefixes of the components' names, so that a sequence may be called as a state.
SEQUENCE, CONTEXT, STATE = "sequence:", "context:", "state:"


@dataclass(frozen=True)
class SequenceInput:
    """One example, as tensors.

    Attributes:
        length: Number of steps before padding: int32, scalar.
        key: Name of the example: string, scalar.
        sequences: Tensors of shape [steps, ...], of which `tf.SparseTensor`s may be some.
        context: Tensors that do not depend on the step, of which `tf.SparseTensor`s may be some.
        states: The states before the first step.
    """

    length: Any
    key: Any
    sequences: dict[str, Any]
    context: dict[str, Any]
    states: dict[str, Any]

    @classmethod
    def checked(
        cls, length: Any, key: Any, sequences: Any, context: Any, states: Any
    ) -> SequenceInput:
        """Converts arguments to tensors, and checks all properties known before the run.

        Raises:
            TypeError: `length` is not int32, `key` is no string, or one of the others is not a
                dictionary with strings as keys.
            ValueError: `length` or `key` is not a scalar, a name contains ":", a shape is not
                known well enough, or there is no sequence.
        """
        length = as_scalar(length, "input_length")
        key = as_scalar(key, "input_key")
        for what, tensor, dtype in (
            ("input_length", length, tf.int32),
            ("input_key", key, tf.string),
        ):
            if tensor.dtype != dtype:
                raise TypeError(f"{what} has dtype {tensor.dtype.name}: expected {dtype.name}")
        example = cls(
            length=length,
            key=key,
            sequences=_as_sequences(sequences),
            context=_as_tensors("input_context", context),
            states=_as_tensors("initial_states", states),
        )
        for what, tensors in (
            ("input_context", example.context),
            ("initial_states", example.states),
        ):
            for name, tensor in tensors.items():
                if not isinstance(tensor, tf.SparseTensor):
                    _check_known(f"{what}[{name!r}]", tensor, tensor.shape)
        return example

    def all_tensors(self) -> list[Any]:
        """Returns all tensors of the example, the three of a sparse one among them."""
        parts = [*self.sequences.values(), *self.context.values(), *self.states.values()]
        return [self.length, self.key, *tf.nest.flatten(parts, expand_composites=True)]

    def specs(self, num_unroll: int) -> dict[str, tf.TensorSpec]:
        """Returns shape and dtype of each component of `pieces`."""
        specs = {
            "length": tf.TensorSpec([], tf.int32),
            "total_length": tf.TensorSpec([], tf.int32),
            "sequence": tf.TensorSpec([], tf.int32),
            "sequence_count": tf.TensorSpec([], tf.int32),
            "next_key": tf.TensorSpec([], tf.string),
        }
        for name, value in self.sequences.items():
            shape = tf.TensorShape([num_unroll]).concatenate(value.shape[1:])
            specs[SEQUENCE + name] = _spec(value, shape)
        for prefix, tensors in ((CONTEXT, self.context), (STATE, self.states)):
            for name, value in tensors.items():
                specs[prefix + name] = _spec(value, value.shape)
        return specs


@dataclass(frozen=True)
class Pieces:
    """An example's pieces.

    Attributes:
        count: Number of pieces, an int32 scalar tensor; 0 if the sequences have no steps.
        keys: "%05d_of_%05d:key" with the piece's index and `count`: string, shape [count].
        components: By name, tensors of shape [count, ...]; a state's only for the first piece.
    """

    count: Any
    keys: Any
    components: dict[str, Any]


def value_length(sequences: Mapping[str, Any]) -> Any:
    """Returns the number of steps of all sequences, an int32 scalar tensor.

    When evaluated, it raises `tf.errors.InvalidArgumentError` if they differ.
    """
    lengths = {name: _steps(value) for name, value in sequences.items()}
    first = next(iter(lengths.values()))
    checks = [
        tf.debugging.Assert(
            tf.equal(length, first),
            [
                f"input_sequences must have the same length, but {name!r} and another:",
                length,
                first,
            ],
        )
        for name, length in list(lengths.items())[1:]
    ]
    with tf.control_dependencies(checks):
        return tf.identity(first, name="value_length")


def padded_length(sequences: Mapping[str, Any]) -> Any:
    """Returns the number of steps of sequences that are to be padded, an int32 scalar tensor.

    It is that of the dense ones. Sparse ones count only if there are no others: a parsed example
    has the last step with a value, but not the number of steps.

    When evaluated, it raises `tf.errors.InvalidArgumentError` if dense ones differ.
    """
    dense = {k: v for k, v in sequences.items() if not isinstance(v, tf.SparseTensor)}
    if dense:
        return value_length(dense)
    return tf.reduce_max(tf.stack([_steps(value) for value in sequences.values()]))


def pad_to_multiple(sequences: Mapping[str, Any], steps: Any, multiple: int) -> dict[str, Any]:
    """Appends zeros or "" to each sequence of `steps`, up to a multiple of `multiple`.

    When evaluated, it raises `tf.errors.InvalidArgumentError` if a sparse one has a later step.
    """
    padded = {}
    missing = -steps % multiple
    for name, value in sequences.items():
        if isinstance(value, tf.SparseTensor):
            length = tf.cast(steps + missing, tf.int64)
            last = tf.reduce_max(value.indices[:, 0])
            message = f"input_sequences[{name!r}] has a value at step, of steps:"
            check = tf.debugging.Assert(last < length, [message, last, length])
            with tf.control_dependencies([check]):
                shape = tf.concat([length[tf.newaxis], value.dense_shape[1:]], 0)
            padded[name] = tf.SparseTensor(value.indices, value.values, shape)
        else:
            rest = tf.shape(value)[1:]
            zeros = tf.zeros(tf.concat([[missing], rest], 0), value.dtype)
            padded[name] = tf.concat([value, zeros], 0)
            padded[name].set_shape(tf.TensorShape([None]).concatenate(value.shape[1:]))
    return padded


def cut(example: SequenceInput, num_unroll: int) -> Pieces:
    """Cuts an example into pieces of `num_unroll` steps.

    When evaluated, the result raises `tf.errors.InvalidArgumentError` if the sequences differ in
    length, or their length is not a multiple of `num_unroll` or less than `example.length`.
    """
    sequences = {name: _of_any_length(value) for name, value in example.sequences.items()}
    steps = value_length(sequences)
    with tf.control_dependencies(_length_checks(example.length, steps, num_unroll)):
        count = tf.identity(steps // num_unroll, name="sequence_count")
    index = tf.range(count)
    keys = _piece_keys(index, count, example.key)
    after_last = tf.strings.join(["STOP:", example.key])
    next_keys = tf.concat([keys, [after_last]], 0)[1:]
    components = {
        "length": tf.clip_by_value(example.length - index * num_unroll, 0, num_unroll),
        "total_length": tf.fill([count], example.length),
        "sequence": index,
        "sequence_count": tf.fill([count], count),
        # Without pieces there would be one key too many.
        "next_key": next_keys[:count],
    }
    for name, value in sequences.items():
        components[SEQUENCE + name] = _cut_sequence(value, count, num_unroll)
    for name, value in example.context.items():
        value = pack(value)
        multiples = tf.concat([[count], tf.ones([value.shape.rank], tf.int32)], 0)
        components[CONTEXT + name] = tf.tile(value[tf.newaxis], multiples)
    for name, value in example.states.items():
        components[STATE + name] = value[tf.newaxis][:count]
    return Pieces(count, keys, components)


def fillers(specs: Mapping[str, tf.TensorSpec], count: Any) -> Pieces:
    """Returns pieces of no sequence, all zeros and "": their "sequence_count" tells them apart.

    Args:
        specs: Shape and dtype of each component.
        count: Number of pieces, an int32 scalar tensor.
    """
    keys = tf.strings.join(["FILLER:", tf.strings.as_string(tf.range(count))])
    components = {
        name: tf.zeros(tf.stack([count, *spec.shape.as_list()]), spec.dtype)
        for name, spec in specs.items()
    }
    return Pieces(count, keys, components)


def _as_sequences(sequences: Any) -> dict[str, Any]:
    converted = _as_tensors("input_sequences", sequences)
    if not converted:
        raise ValueError("input_sequences is empty: expected at least one sequence")
    for name, value in converted.items():
        what = f"input_sequences[{name!r}]"
        is_sparse = isinstance(value, tf.SparseTensor)
        if value.shape.rank == 0 or (value.shape.rank is None and not is_sparse):
            raise ValueError(
                f"{what} has the shape {value.shape}: expected the number of steps as first "
                "dimension; use set_shape"
            )
        if not is_sparse:
            _check_known(what, value, value.shape[1:])
    dense = {k: v for k, v in converted.items() if not isinstance(v, tf.SparseTensor)}
    statics = {name: _static_steps(value) for name, value in dense.items()}
    if len(set(statics.values()) - {None}) > 1:
        raise ValueError(f"input_sequences must have the same length, but have {statics}")
    return converted


def _as_tensors(what: str, values: Any) -> dict[str, Any]:
    """Converts a dictionary's values, in the order of their names."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{what} is a {type(values).__name__}: expected a dict of tensors")
    for name in values:
        if not isinstance(name, str):
            raise TypeError(f"{what} has the key {name!r}: expected strings as keys")
        if ":" in name:
            raise ValueError(f"{what} has the key {name!r}: a key must not contain ':'")
    converted = {
        name: tf.compat.v1.convert_to_tensor_or_sparse_tensor(values[name])
        for name in sorted(values)
    }
    if what == "initial_states":
        for name, value in converted.items():
            if isinstance(value, tf.SparseTensor):
                raise TypeError(f"{what}[{name!r}] is sparse: expected a dense tensor")
    return converted


def _spec(value: Any, shape: tf.TensorShape) -> tf.TensorSpec:
    if isinstance(value, tf.SparseTensor):
        return tf.TensorSpec(PACKED_SPARSE_SHAPE, tf.string)
    return tf.TensorSpec(shape, value.dtype)


def _check_known(what: str, tensor: Any, shape: tf.TensorShape) -> None:
    if not shape.is_fully_defined():
        raise ValueError(
            f"{what} has the shape {tensor.shape}, which must be fully defined, in a sequence but "
            "for the first dimension: use set_shape"
        )


def _static_steps(sequence: Any) -> int | None:
    dims = sequence.shape.dims
    return tf.compat.dimension_value(dims[0]) if dims else None


def _steps(sequence: Any) -> Any:
    if isinstance(sequence, tf.SparseTensor):
        return tf.cast(sequence.dense_shape[0], tf.int32)
    return tf.shape(sequence)[0]


def _of_any_length(sequence: Any) -> Any:
    """Hides a known number of steps: it may be wrong, which is found when the graph runs."""
    if isinstance(sequence, tf.SparseTensor):
        return sequence
    shape = tf.TensorShape([None]).concatenate(sequence.shape[1:])
    return tf.compat.v1.placeholder_with_default(sequence, shape)


def _length_checks(length: Any, steps: Any, num_unroll: int) -> list[Any]:
    return [
        tf.debugging.Assert(tf.equal(steps % num_unroll, 0), [_not_a_multiple(steps, num_unroll)]),
        tf.debugging.Assert(
            (length >= 0) & (length <= steps),
            ["input_length must be from 0 to the length of input_sequences:", length, steps],
        ),
    ]


def _not_a_multiple(steps: Any, num_unroll: int) -> Any:
    expected = f"the length of input_sequences should be a multiple of: {num_unroll}"
    seen = [", but saw value: ", tf.strings.as_string(steps), ". Consider setting pad=True."]
    return tf.strings.join([expected, *seen])


def _piece_keys(index: Any, count: Any, key: Any) -> Any:
    digits = [tf.strings.as_string(number, width=5, fill="0") for number in (index, count)]
    return tf.strings.join([digits[0], "_of_", digits[1], ":", key])


def _cut_sequence(value: Any, count: Any, num_unroll: int) -> Any:
    """Returns a tensor of shape [count, num_unroll, ...], or of strings if `value` is sparse."""
    if not isinstance(value, tf.SparseTensor):
        return tf.reshape(value, tf.concat([[count, num_unroll], tf.shape(value)[1:]], 0))
    front = tf.cast(tf.stack([count, num_unroll]), tf.int64)
    cut_value = tf.sparse.reshape(value, tf.concat([front, value.dense_shape[1:]], 0))
    return tf.raw_ops.SerializeManySparse(
        sparse_indices=cut_value.indices,
        sparse_values=cut_value.values,
        sparse_shape=cut_value.dense_shape,
    )
