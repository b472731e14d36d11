"""Accumulators on the parameter servers, in which the gradients of several workers meet.

A worker pushes the gradients for one parameter server together, in a few tensors of medium size,
and each such bucket has one accumulator. So a mean is of the same workers for all variables of a
bucket, and what crosses is independent of the number of variables.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from ..options import BUCKET_BYTES
from ..tensors import GradientsAndVariables, Operation, Tensor, Variable
from .sparse_mean import Leftover, SparseMean, dtype_of_sums

v1 = tf.compat.v1


class _Meeting(Protocol):
    """Accumulators of a bucket of dense gradients, or of one sparse gradient."""

    def push(self, step: Tensor) -> list[Operation]: ...
    def take(self, replicas: int | Tensor) -> list[Any]: ...
    def start(self, step: Tensor) -> list[Operation]: ...
    def leftovers(self) -> list[Leftover]: ...


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
    """The workers' gradients on their way to a mean.

    Workers run what `push` gives, the chief what `take` gives. Both build the same graph, and the
    accumulators are shared between their sessions by name.

    Args:
        pairs: `(gradient, variable)` pairs of one worker, in the order in which they are packed.
            Gradients are tensors, `tf.IndexedSlices` or None.
        bucket_bytes: Bytes up to which dense gradients share a bucket, by parameter server and
            dtype; a larger gradient is cut into pieces of this size. 0: each by itself, whole.
        name: What the accumulators' shared names begin with; unique in the job.

    Raises:
        ValueError: A gradient is of another kind, or there is none at all.
    """

    def __init__(
        self, pairs: GradientsAndVariables, *, bucket_bytes: int = BUCKET_BYTES, name: str
    ) -> None:
        self._pairs = list(pairs)
        self._meetings: list[tuple[Sequence[int], _Meeting]] = []
        dense, sparse = _sort(self._pairs)
        for place, gradient, variable in sparse:
            self._meetings.append(([place], SparseMean(gradient, variable, name)))
        for members in _in_buckets(dense, bucket_bytes):
            self._meetings.append(
                ([each.place for each in members], _bucket(members, bucket_bytes, name))
            )

    @property
    def sources(self) -> list[Operation]:
        """The operations that compute this worker's gradients."""
        tensors = tf.nest.flatten([pair[0] for pair in self._pairs], expand_composites=True)
        return [each.op for each in tensors if each is not None]

    def push(self, step: Tensor, steps: dict[str, Tensor] | None = None) -> list[Operation]:
        """Hands this worker's gradients over.

        Args:
            step: int64 scalar on the worker: the round that they are for. An accumulator of a
                later round drops them.
            steps: The same number where a parameter server has it already, by its device.
        """
        # A number that is on the server already need not cross once more.
        steps = steps or {}
        return [
            operation
            for places, meeting in self._meetings
            for operation in meeting.push(steps.get(self._pairs[places[0]][1].device, step))
        ]

    def take(self, replicas: int | Tensor) -> list[tuple[Any, Variable]]:
        """The means, once there are `replicas` gradients of each, in the order of the pairs."""
        means: list[Any] = [None] * len(self._pairs)
        for places, meeting in self._meetings:
            for place, mean in zip(places, meeting.take(replicas), strict=True):
                means[place] = mean
        return [(mean, pair[1]) for mean, pair in zip(means, self._pairs, strict=True)]

    def start(self, step: Tensor) -> list[Operation]:
        """Has the accumulators drop gradients from before `step`, an int64 scalar."""
        return [op for _, meeting in self._meetings for op in meeting.start(step)]

    def leftovers(self) -> list[Leftover]:
        """What was pushed and not yet taken, by accumulator."""
        return [each for _, meeting in self._meetings for each in meeting.leftovers()]


class _Accumulator:
    """A `ConditionalAccumulator` on a device; types of 16 bits are summed as float32."""

    def __init__(
        self, dtype: Any, shape: Any, device: str, name: str, reduction: str = "MEAN"
    ) -> None:
        self._dtype, self._device = dtype, device
        self._inner_dtype = dtype_of_sums(dtype)
        with v1.device(device):
            self._accumulator = v1.ConditionalAccumulator(
                self._inner_dtype, shape=shape, shared_name=name, reduction_type=reduction
            )

    def push(self, gradient: Tensor, step: Tensor) -> Operation:
        """Adds a gradient, or drops it if the accumulator is at a later step."""
        with v1.device(self._device):
            gradient = tf.cast(gradient, self._inner_dtype)
            return self._accumulator.apply_grad(gradient, local_step=step)

    def take(self, replicas: int | Tensor) -> Tensor:
        with v1.device(self._device):
            return tf.cast(self._accumulator.take_grad(replicas), self._dtype)

    def start(self, step: Tensor) -> Operation:
        with v1.device(self._device):
            return self._accumulator.set_global_step(step)

    def leftover(self) -> Leftover:
        """What was pushed and not yet taken."""
        with v1.device(self._device):
            # Only a take empties an accumulator; it waits while there is nothing in it.
            drop = self._accumulator.take_grad(1).op
            return Leftover(self._accumulator.num_accumulated(), drop)


class _Bucket:
    """Several dense gradients as one flat tensor, or one of them as several pieces."""

    def __init__(self, members: Sequence[_Dense], sizes: Sequence[int], name: str) -> None:
        self._members, self._sizes = members, sizes
        self._device, dtype, self._source = members[0].kind
        self._accumulators = [
            _Accumulator(dtype, [size], self._device, f"{name}/{number}")
            for number, size in enumerate(sizes)
        ]

    def push(self, step: Tensor) -> list[Operation]:
        # Packed where the gradients are computed, so that one tensor crosses and not many.
        with v1.device(self._source):
            flat = [tf.reshape(_checked(each), [-1]) for each in self._members]
            whole = tf.concat(flat, 0) if len(flat) > 1 else flat[0]
            pieces = _split(whole, self._sizes)
        return [
            each.push(piece, step) for each, piece in zip(self._accumulators, pieces, strict=True)
        ]

    def take(self, replicas: int | Tensor) -> list[Tensor]:
        taken = [each.take(replicas) for each in self._accumulators]
        with v1.device(self._device):
            whole = tf.concat(taken, 0) if len(taken) > 1 else taken[0]
            flat = _split(whole, [each.size for each in self._members])
            return [
                tf.reshape(mean, each.shape) for mean, each in zip(flat, self._members, strict=True)
            ]

    def start(self, step: Tensor) -> list[Operation]:
        return [each.start(step) for each in self._accumulators]

    def leftovers(self) -> list[Leftover]:
        return [each.leftover() for each in self._accumulators]


class _Single:
    """One dense gradient as it is, of a known shape or not."""

    def __init__(self, member: _Dense, name: str) -> None:
        self._member = member
        device, dtype, _ = member.kind
        shape = member.shape if member.shape.is_fully_defined() else None
        self._accumulator = _Accumulator(dtype, shape, device, f"{name}/0")

    def push(self, step: Tensor) -> list[Operation]:
        return [self._accumulator.push(self._member.gradient, step)]

    def take(self, replicas: int | Tensor) -> list[Tensor]:
        return [self._accumulator.take(replicas)]

    def start(self, step: Tensor) -> list[Operation]:
        return [self._accumulator.start(step)]

    def leftovers(self) -> list[Leftover]:
        return [self._accumulator.leftover()]


class Tally(_Accumulator):
    """Sums of figures of the gradients that make a step, by the accumulators' own rule.

    They are pushed with the gradients and dropped as those are, so what is counted is what was
    applied and not what was computed.

    Args:
        figures: How many there are.
        device: Where they are added up.
        name: What the accumulator's shared name begins with.
    """

    def __init__(self, figures: int, device: str, name: str) -> None:
        # float64 counts exactly, up to 2**53.
        super().__init__(tf.float64, [figures], device, f"{name}/tally", "SUM")

    def take(self, replicas: int | Tensor) -> Tensor:
        """The sums of a step, int64 of shape [figures], once there are `replicas` gradients."""
        sums = super().take(replicas)
        with v1.device(self._device):
            return tf.cast(sums, tf.int64)


def _sort(pairs: GradientsAndVariables) -> tuple[list[_Dense], list[tuple[int, Any, Variable]]]:
    dense, sparse = [], []
    for place, (gradient, variable) in enumerate(pairs):
        if isinstance(gradient, tf.IndexedSlices):
            sparse.append((place, gradient, variable))
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
        is_known = each.shape.is_fully_defined()
        if not is_known or each.bytes >= bucket_bytes:
            yield [each]
            continue
        bucket = filling.setdefault(each.kind, [])
        if bucket and sum(one.bytes for one in bucket) + each.bytes > bucket_bytes:
            yield bucket
            bucket = filling[each.kind] = []
        bucket.append(each)
    yield from (bucket for bucket in filling.values() if bucket)


def _bucket(members: Sequence[_Dense], bucket_bytes: int, name: str) -> _Meeting:
    content = ";".join(f"{each.variable.op.name} {each.shape}" for each in members)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    name = f"{name}/{members[0].variable.op.name}/gradients_{len(members)}_{digest}"
    first = members[0]
    if len(members) > 1:
        return _Bucket(members, [sum(each.size for each in members)], name)
    # Twice the size: two pieces of little more than half a bucket are no gain.
    if bucket_bytes and first.shape.is_fully_defined() and first.bytes >= 2 * bucket_bytes:
        return _Bucket(members, _even_cuts(first, bucket_bytes), name)
    return _Single(first, name)


def _even_cuts(gradient: _Dense, bucket_bytes: int) -> list[int]:
    count = math.ceil(gradient.bytes / bucket_bytes)
    short, longer = divmod(gradient.size, count)
    return [short + 1] * longer + [short] * (count - longer)


def _split(whole: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    pieces: list[Tensor] = tf.split(whole, sizes) if len(sizes) > 1 else [whole]
    return pieces


def _checked(member: _Dense) -> Tensor:
    """The gradient; if its shape is not known, it fails in the step when it is another one."""
    gradient = member.gradient
    if gradient.shape.is_fully_defined():
        gradient.shape.assert_is_compatible_with(member.shape)
        return gradient
    return tf.ensure_shape(gradient, member.shape)
