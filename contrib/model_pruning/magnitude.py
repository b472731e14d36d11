"""Pruning by magnitude, weight by weight or in blocks: a mask keeps the largest absolute values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def expand_tensor(tensor: tf.Tensor, block_dims: Sequence[int]) -> tf.Tensor:
    """Turns each element of a matrix into a block of equal elements.

    The Kronecker product with `tf.ones(block_dims)`, without a multiplication.

    Args:
      tensor: `[m, n]`.
      block_dims: Height and width of a block.

    Returns:
      `[m * height, n * width]`.

    Raises:
      ValueError: `tensor` is no matrix, or `block_dims` has not two elements.
    """
    tensor = tf.convert_to_tensor(tensor)
    if tensor.shape.rank != 2:
        raise ValueError(f"expand_tensor expects rank 2, got rank {tensor.shape.rank}")
    if len(block_dims) != 2:
        raise ValueError(f"block_dims={list(block_dims)} should be a height and a width")
    height, width = block_dims
    return tf.repeat(tf.repeat(tensor, height, axis=0), width, axis=1)


def factorized_pool(
    input_tensor: tf.Tensor,
    window_shape: Sequence[int],
    pooling_type: str,
    strides: Sequence[int],
    padding: str,
    name: str | None = None,
) -> tf.Tensor:
    """Pools a matrix by two one-dimensional pools: along the columns, then along the rows.

    Args:
      input_tensor: `[m, n]`.
      window_shape: Height and width of the window.
      pooling_type: "AVG" or "MAX".
      strides: Steps of the window along both axes.
      padding: "SAME" or "VALID".
      name: Name of the scope.

    Returns:
      The result of a two-dimensional pool, as a matrix.

    Raises:
      ValueError: `input_tensor` is no matrix.
    """
    input_tensor = tf.convert_to_tensor(input_tensor)
    if input_tensor.shape.rank != 2:
        raise ValueError(f"factorized_pool expects rank 2, got rank {input_tensor.shape.rank}")
    (height, width), (down, across) = window_shape, strides
    with tf.name_scope(name or "factorized_pool"):
        pooled = _pool(
            input_tensor[tf.newaxis, :, :, tf.newaxis],
            [1, width],
            pooling_type,
            [1, across],
            padding,
        )
        pooled = _pool(pooled, [height, 1], pooling_type, [down, 1], padding)
        return tf.squeeze(pooled, [0, 3])


def pool_blocks(
    matrix: tf.Tensor, block_dims: Sequence[int], pooling_type: str, *, factorized: bool = False
) -> tf.Tensor:
    """Pools each block of a matrix to one element.

    Where blocks do not divide the matrix, padding ("SAME") is split between both sides.

    Args:
      matrix: `[m, n]`.
      block_dims: Height and width of a block.
      pooling_type: "AVG" or "MAX".
      factorized: By `factorized_pool`; the values are the same.

    Returns:
      `[ceil(m / height), ceil(n / width)]`.
    """
    if factorized:
        return factorized_pool(matrix, block_dims, pooling_type, block_dims, "SAME")
    image = matrix[tf.newaxis, :, :, tf.newaxis]
    return tf.squeeze(_pool(image, block_dims, pooling_type, block_dims, "SAME"), [0, 3])


def _pool(
    image: tf.Tensor, window: Sequence[int], kind: str, strides: Sequence[int], padding: str
) -> Any:
    return tf.nn.pool(image, list(window), kind, strides=list(strides), padding=padding)


def mask_by_magnitude(
    weights: tf.Tensor, old_threshold: tf.Tensor, sparsity: tf.Tensor, decay: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the threshold for a sparsity, and the mask of the weights that reach it.

    Of n weights, k = round(n * (1 - sparsity)) should stay, but at least one. The current
    threshold is the k-th largest absolute value, and the new one is current * (1 - decay) + old *
    decay. A weight stays if its absolute value is not below the new threshold. Of equal values at
    the limit all stay, so more than k may.

    Args:
      weights: Of any shape that is fully defined.
      old_threshold: Scalar of the dtype of `weights`.
      sparsity: float32 scalar in [0, 1].
      decay: In [0, 1).

    Returns:
      The mask, of ones and zeros, with the shape and the dtype of `weights`, and the new threshold.
    """
    magnitudes = tf.abs(weights)
    size = weights.shape.num_elements()
    kept = tf.round(tf.cast(size, tf.float32) * (1.0 - sparsity))
    kept = tf.clip_by_value(tf.cast(kept, tf.int32), 1, size)
    # The smallest of the k largest: faster than sorting them, let alone all weights.
    largest = tf.math.top_k(tf.reshape(magnitudes, [-1]), k=kept, sorted=False)[0]
    current = tf.reduce_min(largest)
    keep_old = tf.cast(decay, weights.dtype)
    threshold = current * (1 - keep_old) + old_threshold * keep_old
    return tf.cast(magnitudes >= threshold, weights.dtype), threshold


def mask_by_blocks(
    weights: tf.Tensor,
    old_threshold: tf.Tensor,
    sparsity: tf.Tensor,
    decay: float,
    *,
    block_dims: Sequence[int],
    pooling_type: str,
    factorized: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the threshold and the mask as `mask_by_magnitude` does, for blocks as wholes.

    A block counts by the average or the maximum of its absolute weights. If `weights` without
    dimensions of size 1 is no matrix, or a block is one weight, this is `mask_by_magnitude`.

    Args:
      weights: Of any shape that is fully defined.
      old_threshold: Scalar of the dtype of `weights`.
      sparsity: float32 scalar in [0, 1]: of the blocks.
      decay: In [0, 1).
      block_dims: Height and width of a block, positive or -1 (all rows or columns).
      pooling_type: "AVG" or "MAX".
      factorized: Pools in one dimension after the other.

    Returns:
      The mask with the shape and the dtype of `weights`, and the new threshold.

    Raises:
      ValueError: `pooling_type` is invalid.
    """
    shape = [size for size in weights.shape.as_list() if size != 1]
    if len(shape) != 2 or list(block_dims) == [1, 1]:
        return mask_by_magnitude(weights, old_threshold, sparsity, decay)
    if pooling_type not in ("AVG", "MAX"):
        raise ValueError(f"block_pooling_function={pooling_type!r} should be 'AVG' or 'MAX'")
    block = [all_ if size == -1 else size for size, all_ in zip(block_dims, shape, strict=True)]
    matrix = tf.abs(tf.reshape(weights, shape))
    pooled = pool_blocks(matrix, block, pooling_type, factorized=factorized)
    mask, threshold = mask_by_magnitude(pooled, old_threshold, sparsity, decay)
    mask = expand_tensor(mask, block)[: shape[0], : shape[1]]
    return tf.reshape(mask, weights.shape), threshold
