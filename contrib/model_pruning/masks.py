"""Masks on weights, whole or partitioned, and the graph collections where they are found again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from ...tf_internals import PartitionedVariable

v1 = tf.compat.v1

MASK_COLLECTION = "masks"
THRESHOLD_COLLECTION = "thresholds"
MASKED_WEIGHT_COLLECTION = "masked_weights"
WEIGHT_COLLECTION = "kernel"

# `strip_pruning_vars_fn` finds the product of mask and weight by the end of this name.
MASKED_WEIGHT_NAME = "weights/masked_weight"


def apply_mask(x: Any, scope: Any = "") -> tf.Tensor:
    """Puts a mask on a weight: use the product that this returns in its place.

    Makes two variables that are not trained: `mask`, ones at first, with the shape and the dtype
    of `x`, and `threshold`, a scalar, 0 at first. If `x` is a variable, they are made on its
    device, and a mask is partitioned as its weight is. The weight, the mask, the threshold and the
    product go into graph collections, where `Pruning` finds them. When variables are reused (by
    the steps of an RNN), nothing is added there again.

    Example::

        kernel = tf.compat.v1.get_variable("kernel", [784, 10])
        logits = tf.matmul(images, apply_mask(kernel, scope="logits"))

    Args:
      x: A variable, a partitioned variable, or a tensor of a fully defined shape.
      scope: Variable scope of both variables; name or object. Two weights cannot share one scope.

    Returns:
      A tensor, mask * x, named ".../weights/masked_weight".

    Raises:
      ValueError: The program runs eagerly; the shape of `x` is not fully defined; the scope has a
        mask already (and is not reused); or `x` is partitioned along more than one axis.
    """
    if tf.executing_eagerly():
        raise ValueError("masks need a graph: build inside `with tf.Graph().as_default():`")
    if not is_partitioned(x) and not isinstance(x, tf.Variable):
        x = tf.convert_to_tensor(x)
    if not x.shape.is_fully_defined():
        raise ValueError(f"{x.name!r} has the shape {x.shape}: a mask needs a fully defined shape")
    mask, threshold = _make_variables(x, scope)
    masked = tf.multiply(mask, x, name=MASKED_WEIGHT_NAME)
    if not any(mask is known for known in v1.get_collection(MASK_COLLECTION)):
        v1.add_to_collection(MASK_COLLECTION, mask)
        v1.add_to_collection(THRESHOLD_COLLECTION, threshold)
        v1.add_to_collection(MASKED_WEIGHT_COLLECTION, masked)
        v1.add_to_collection(WEIGHT_COLLECTION, x)
    return masked


def get_masks() -> list[Any]:
    """Returns the masks in the default graph; the other functions' lists are parallel to it."""
    return list(v1.get_collection(MASK_COLLECTION))


def get_thresholds() -> list[Any]:
    """Returns the masks' thresholds, scalar variables: the smallest absolute value kept."""
    return list(v1.get_collection(THRESHOLD_COLLECTION))


def get_masked_weights() -> list[tf.Tensor]:
    """Returns the products of masks and weights."""
    return list(v1.get_collection(MASKED_WEIGHT_COLLECTION))


def get_weights() -> list[Any]:
    """Returns the trained weights, without their masks: variables, or tensors."""
    return list(v1.get_collection(WEIGHT_COLLECTION))


def get_weight_sparsity() -> list[tf.Tensor]:
    """Returns the fraction of zeros in each mask, as float32 scalars; each call makes new ops."""
    return [tf.math.zero_fraction(mask) for mask in get_masks()]


def _make_variables(x: Any, scope: Any) -> tuple[Any, Any]:
    keys = v1.GraphKeys
    options = {
        "dtype": x.dtype.base_dtype,
        "trainable": False,
        "collections": [keys.GLOBAL_VARIABLES, keys.MODEL_VARIABLES],
    }
    with v1.variable_scope(scope) as entered:
        # A partitioner around here has cut the weight already, or was not meant for it.
        entered.set_partitioner(None)
        with _beside(x):
            ones = v1.ones_initializer()
            if is_partitioned(x):
                entered.set_partitioner(lambda shape, dtype: partitions(x))
            mask = v1.get_variable("mask", x.shape, initializer=ones, **options)
        entered.set_partitioner(None)
        with _beside(slices(x)[0]):
            zeros = v1.zeros_initializer()
            threshold = v1.get_variable("threshold", [], initializer=zeros, **options)
    return mask, threshold


@contextlib.contextmanager
def _beside(x: Any) -> Iterator[None]:
    """Makes variables where the slices of `x` are, one after the other.

    A strategy that spreads variables over parameter servers would part the mask from its weight.
    A tensor's device is where it is computed, which is no place for a variable.
    """
    devices = [part.device for part in slices(x) if isinstance(part, tf.Variable)]

    def create(next_creator: Any, **kwargs: Any) -> Any:
        with v1.device(devices.pop(0) if devices else ""):
            return next_creator(**kwargs)

    with v1.variable_creator_scope(create):
        yield


def is_partitioned(x: Any) -> bool:
    """Returns whether `x` is a result of `get_variable` under a partitioner."""
    return isinstance(x, PartitionedVariable)


def slices(x: Any) -> list[Any]:
    """Returns the variables that make up `x`: its slices in order, or `x` itself if it is whole."""
    return list(x) if is_partitioned(x) else [x]


def op_name(x: Any) -> str:
    """Returns the name of `x` for regular expressions: without ":0", and without slices."""
    return str(x.name) if is_partitioned(x) else str(x.op.name)


def partition_axis(x: Any) -> int:
    """Returns the axis along which `x` is cut; 0 if there is one slice only.

    Raises:
      ValueError: `x` is cut along more than one axis.
    """
    cut = [
        axis
        for axis, size in enumerate(x.shape.as_list())
        if any(part.shape.as_list()[axis] != size for part in x)
    ]
    if len(cut) > 1:
        raise ValueError(
            f"{x.name!r} is partitioned along the axes {cut}: only one axis is possible here"
        )
    return cut[0] if cut else 0


def partitions(x: Any) -> list[int]:
    """Returns the number of slices along each axis, as a partitioner returns it.

    Raises:
      ValueError: `x` is cut along more than one axis.
    """
    counts = [1] * x.shape.rank
    counts[partition_axis(x)] = len(slices(x))
    return counts


def read(x: Any) -> tf.Tensor:
    """Reads a variable (or slices, joined) again, after the control dependencies in force.

    `tf.convert_to_tensor` of a reference variable returns one and the same tensor each time, which
    does not wait for a training op in the same run. Tensors and numbers stay as they are.
    """
    values = [part.read_value() if isinstance(part, tf.Variable) else part for part in slices(x)]
    if len(values) == 1:
        return tf.convert_to_tensor(values[0])
    return tf.concat(values, partition_axis(x))


def assign(x: Any, new_value: tf.Tensor) -> tf.Operation:
    """Assigns to a variable; to a partitioned one, each slice its part of the whole tensor.

    Raises:
      ValueError: `x` is cut along more than one axis.
    """
    if not is_partitioned(x):
        return x.assign(new_value, read_value=False)
    axis = partition_axis(x)
    parts = slices(x)
    values = tf.split(new_value, [part.shape.as_list()[axis] for part in parts], axis)
    pairs = zip(parts, values, strict=True)
    return tf.group(*[part.assign(value, read_value=False) for part, value in pairs])
