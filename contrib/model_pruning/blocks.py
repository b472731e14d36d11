"""Arithmetic on blocks of matrices: pooling a matrix by blocks, and expanding it back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def kronecker_product(mat1: tf.Tensor, mat2: tf.Tensor) -> tf.Tensor:
    """Returns the Kronecker product: each element of the first matrix, times the whole second one.

    Args:
      mat1: `[m1, n1]`, of a fully defined shape.
      mat2: `[m2, n2]`, of a fully defined shape and of the same dtype.

    Returns:
      `[m1 * m2, n1 * n2]`.
    """
    mat1, mat2 = tf.convert_to_tensor(mat1), tf.convert_to_tensor(mat2)
    (m1, n1), (m2, n2) = mat1.shape.as_list(), mat2.shape.as_list()
    product = tf.reshape(mat1, [m1, 1, n1, 1]) * tf.reshape(mat2, [1, m2, 1, n2])
    return tf.reshape(product, [m1 * m2, n1 * n2])


def expand_tensor(tensor: tf.Tensor, block_dims: Sequence[int]) -> tf.Tensor:
    """Turns each element of a matrix into a block of equal elements.

    The same as `kronecker_product(tensor, tf.ones(block_dims))`, without a multiplication.

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
      name: Of the scope.

    Returns:
      What a two-dimensional pool returns, as a matrix.

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
