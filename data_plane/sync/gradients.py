"""The workers' gradients on their way to a mean.

A worker pushes the gradients for one parameter server together, in a few tensors of medium size,
and each such bucket has one accumulator. So a mean is of the same workers for all variables of a
bucket. The number of transfers does not depend on that of variables.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..options import BUCKET_BYTES
from ..tensors import GradientsAndVariables, Operation, Tensor, Variable
from .accumulators import Accumulator, RowAccumulator, dtype_of_sums, once_and_in_order

v1 = tf.compat.v1

# Where no row is, if the variable's rows are not known.
_BEYOND = 2**62


@dataclass(frozen=True)
class _Dense:
    """One dense gradient; `place` is its position among the pairs."""

    place: int
    gradient: Tensor
    variable: Variable

    @property
    def shape(self) -> Any:
        return self.variable.shape

    @property
    def is_known(self) -> bool:
        return bool(self.shape.is_fully_defined())

    @property
    def size(self) -> int:
        """Elements; the shape has to be known."""
        return math.prod(self.shape.as_list())

    @property
    def bytes(self) -> int:
        return self.size * int(self.gradient.dtype.size)

    @property
    def kind(self) -> tuple[str, Any, str]:
        """Gradients share a bucket when destination, dtype and source agree."""
        return self.variable.device, self.gradient.dtype.base_dtype, self.gradient.device


class GradientAccumulators:
    """Accumulators for the gradients of a model.

    Workers run the ops of `push`, the chief those of `take`. Both build the same graph, and the
    accumulators are shared between their sessions by name.

    Args:
        pairs: `(gradient, variable)` pairs of one worker, in the order in which they are packed.
            Gradients are tensors, `tf.IndexedSlices` or None.
        bucket_bytes: Bytes up to which dense gradients share a bucket, by parameter server and
            dtype; a larger gradient is cut into pieces of this size. 0: each by itself, whole.
        name: Prefix of the accumulators' shared names; unique in the job.

    Raises:
        ValueError: A gradient is of another kind, or there is none at all.
    """

    def __init__(
        self, pairs: GradientsAndVariables, *, bucket_bytes: int = BUCKET_BYTES, name: str
    ) -> None:
        self._pairs = list(pairs)
        dense, sparse = _sort(self._pairs)
        self._parts: list[_Rows | _Bucket] = [
            *(_Rows(place, *self._pairs[place], name) for place in sparse),
            *(_Bucket(each, bucket_bytes, name) for each in _in_buckets(dense, bucket_bytes)),
        ]

    @property
    def sources(self) -> list[Operation]:
        """The operations that compute this worker's gradients."""
        tensors = tf.nest.flatten([pair[0] for pair in self._pairs], expand_composites=True)
        return [each.op for each in tensors if each is not None]

    @property
    def accumulators(self) -> list[Accumulator]:
        """All of them, in the order in which they are pushed to."""
        return [each for part in self._parts for each in part.accumulators]

    def push(self, step: Tensor, steps: dict[str, Tensor] | None = None) -> list[Operation]:
        """Pushes this worker's gradients.

        Args:
            step: int64 scalar on the worker: the round that they are for. An accumulator of a
                later round drops them.
            steps: The same number on parameter servers that have it already, by device.
        """
        # A number that is on the server already need not cross again.
        steps = steps or {}
        return [
            accumulator.push(value, steps.get(part.device, step))
            for part in self._parts
            for accumulator, value in zip(part.accumulators, part.pack(), strict=True)
        ]

    def take(self, replicas: int | Tensor) -> list[tuple[Any, Variable]]:
        """Returns the means in the order of the pairs, once there are `replicas` gradients."""
        means: list[Any] = [None] * len(self._pairs)
        for part in self._parts:
            taken = [each.take(replicas) for each in part.accumulators]
            with v1.device(part.device):
                for place, mean in zip(part.places, part.unpack(taken), strict=True):
                    means[place] = mean
        return [(mean, pair[1]) for mean, pair in zip(means, self._pairs, strict=True)]


class _Bucket:
    """Several dense gradients as one flat tensor; or one of them, in pieces or whole."""

    def __init__(self, members: Sequence[_Dense], bucket_bytes: int, name: str) -> None:
        self._members = members
        self.places = [each.place for each in members]
        self.device, dtype, self._source = members[0].kind
        self._sizes = _pieces(members, bucket_bytes)
        first = members[0]
        shapes: list[Any] = [[size] for size in self._sizes]
        shapes = shapes or [first.shape if first.is_known else None]
        # Every task has to find the same accumulators: their names describe their contents.
        content = ";".join(f"{each.variable.op.name} {each.shape}" for each in members)
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        name = f"{name}/{first.variable.op.name}/gradients_{len(members)}_{digest}"
        self.accumulators = [
            Accumulator(dtype, shape, self.device, f"{name}/{number}")
            for number, shape in enumerate(shapes)
        ]

    def pack(self) -> list[Tensor]:
        """Returns the values to push, one for each accumulator."""
        if not self._sizes:
            return [self._members[0].gradient]
        # Packed where the gradients are computed, so that one tensor crosses and not many.
        with v1.device(self._source):
            return _split(_join([_checked(each) for each in self._members]), self._sizes)

    def unpack(self, taken: list[Tensor]) -> list[Tensor]:
        """Returns the means of the members."""
        if not self._sizes:
            return taken
        flat = _split(_join(taken), [each.size for each in self._members])
        return [
            tf.reshape(mean, each.shape) for mean, each in zip(flat, self._members, strict=True)
        ]


class _Rows:
    """One gradient of a variable that touches a few of its rows.

    The accumulator only sums, so the division is ours. The workers are counted in a row of their
    own, beyond the last. So sum and count are of the same gradients. Types of 16 bits cross
    unchanged, and are summed as float32.
    """

    def __init__(self, place: int, gradient: Any, variable: Variable, name: str) -> None:
        self._gradient, self._shape, self.device = gradient, variable.shape, variable.device
        self.places = [place]
        self.accumulators = [
            RowAccumulator(gradient.dtype, self.device, f"{name}/{variable.op.name}/rows")
        ]

    def pack(self) -> list[Any]:
        """Returns the gradient with each row once and in order, and with the row of ones."""
        gradient = self._gradient
        rows, dtype = self._shape.as_list()[0], gradient.dtype
        count_row = tf.constant([_BEYOND if rows is None else rows], tf.int64)
        with v1.device(gradient.values.device):
            ones = tf.ones(tf.concat([[1], tf.shape(gradient.values)[1:]], 0), dtype)
            values = tf.cast(tf.concat([gradient.values, ones], 0), dtype_of_sums(dtype))
            indices = tf.concat([tf.cast(gradient.indices, tf.int64), count_row], 0)
            summed = once_and_in_order(tf.IndexedSlices(values, indices))
            return [tf.IndexedSlices(tf.cast(summed.values, dtype), summed.indices)]

    def unpack(self, taken: list[Any]) -> list[Any]:
        """Returns the mean, as `tf.IndexedSlices` with rows in order."""
        [sums] = taken
        count = tf.reshape(sums.values[-1], [-1])[0]
        mean = tf.cast(sums.values[:-1] / count, self._gradient.dtype)
        rows = sums.indices[:-1]
        rows.set_shape([None])
        mean.set_shape(rows.shape.concatenate(self._shape[1:]))
        # An optimizer may want the gradient as a tensor.
        is_known = self._shape.is_fully_defined()
        shape = tf.constant(self._shape.as_list(), tf.int64) if is_known else None
        return [tf.IndexedSlices(mean, rows, shape)]


def _sort(pairs: GradientsAndVariables) -> tuple[list[_Dense], list[int]]:
    """Returns the dense gradients, and the places of the sparse ones."""
    dense, sparse = [], []
    for place, (gradient, variable) in enumerate(pairs):
        if isinstance(gradient, tf.IndexedSlices):
            sparse.append(place)
        elif isinstance(gradient, tf.Tensor):
            dense.append(_Dense(place, gradient, variable))
        elif gradient is not None:
            raise ValueError(
                f"the gradient of {variable.name} is a {type(gradient).__name__}, expected a "
                "tensor, tf.IndexedSlices or None"
            )
    if not dense and not sparse:
        raise ValueError("no variable has a gradient: does the loss depend on any of them?")
    return dense, sparse


def _in_buckets(gradients: Iterable[_Dense], bucket_bytes: int) -> Iterator[list[_Dense]]:
    """Fills buckets one after the other, and those of different kinds side by side."""
    filling: dict[Any, list[_Dense]] = {}
    for each in gradients:
        if not each.is_known or each.bytes >= bucket_bytes:
            yield [each]
            continue
        bucket = filling.setdefault(each.kind, [])
        if bucket and sum(one.bytes for one in bucket) + each.bytes > bucket_bytes:
            yield bucket
            bucket = filling[each.kind] = []
        bucket.append(each)
    yield from (bucket for bucket in filling.values() if bucket)


def _pieces(members: Sequence[_Dense], bucket_bytes: int) -> list[int]:
    """Returns the sizes of the flat tensors that cross; none: the only member crosses whole."""
    first = members[0]
    if len(members) > 1:
        return [sum(each.size for each in members)]
    # Twice the size: two pieces of little more than half a bucket are no gain.
    if not bucket_bytes or not first.is_known or first.bytes < 2 * bucket_bytes:
        return []
    count = math.ceil(first.bytes / bucket_bytes)
    short, longer = divmod(first.size, count)
    return [short + 1] * longer + [short] * (count - longer)


def _join(tensors: Sequence[Tensor]) -> Tensor:
    flat = [tf.reshape(each, [-1]) for each in tensors]
    return tf.concat(flat, 0) if len(flat) > 1 else flat[0]


def _split(whole: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    pieces: list[Tensor] = tf.split(whole, sizes) if len(sizes) > 1 else [whole]
    return pieces


def _checked(member: _Dense) -> Tensor:
    """Returns the gradient; one of unknown shape fails in the step if its shape is wrong."""
    gradient = member.gradient
    if gradient.shape.is_fully_defined():
        gradient.shape.assert_is_compatible_with(member.shape)
        return gradient
    return tf.ensure_shape(gradient, member.shape)
