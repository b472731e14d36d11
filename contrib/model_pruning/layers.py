"""Layers whose kernels have masks: convolution and fully connected, from plain variables."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from .masks import apply_mask

v1 = tf.compat.v1

Initializer = Any
Regularizer = Callable[[Any], Any]
# For all variables, or by "weights" and "biases".
Collections = Sequence[str] | Mapping[str, Sequence[str]]

_XAVIER = v1.glorot_uniform_initializer()
_ZEROS = v1.zeros_initializer()


def masked_convolution(
    inputs: Any,
    num_outputs: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: str = "SAME",
    data_format: str | None = None,
    rate: int | Sequence[int] = 1,
    activation_fn: Callable[[Any], Any] | None = tf.nn.relu,
    normalizer_fn: Callable[..., Any] | None = None,
    normalizer_params: Mapping[str, Any] | None = None,
    weights_initializer: Initializer = _XAVIER,
    weights_regularizer: Regularizer | None = None,
    biases_initializer: Initializer | None = _ZEROS,
    biases_regularizer: Regularizer | None = None,
    reuse: Any = None,
    variables_collections: Collections | None = None,
    outputs_collections: str | Sequence[str] | None = None,
    trainable: bool = True,
    scope: Any = None,
) -> tf.Tensor:
    """Convolves images with a kernel that has a mask, adds biases, and applies an activation.

    Makes the variables `weights`, `mask` (both `[height, width, channels, num_outputs]`),
    `threshold` (scalar) and `biases` (`[num_outputs]`) in the scope.

    Args:
      inputs: `[batch, height, width, channels]`, or `[batch, channels, height, width]` for "NCHW";
        the number of channels has to be known.
      num_outputs: Number of filters.
      kernel_size: Height and width of the kernel, or one number for both.
      stride: Down and across, or one number for both.
      padding: "SAME" or "VALID".
      data_format: "NHWC", "NCHW", or None for "NHWC".
      rate: Dilation of the kernel; other than 1 only with a stride of 1.
      activation_fn: Applied in the end; None for a linear layer.
      normalizer_fn: Applied to the convolution in place of biases.
      normalizer_params: Keyword arguments for `normalizer_fn`.
      weights_initializer: Initializer of the kernel.
      weights_regularizer: Gets the trained kernel, without its mask.
      biases_initializer: None makes no biases.
      biases_regularizer: Gets the biases.
      reuse: As for `tf.compat.v1.variable_scope`; needs `scope`.
      variables_collections: Further collections for the variables; a list, or a mapping from
        "weights" and "biases" to lists. The mask and the threshold are not added.
      outputs_collections: Collections for the output.
      trainable: Whether weights and biases go to `TRAINABLE_VARIABLES`.
      scope: Variable scope; "Conv", made unique, by default.

    Returns:
      A tensor like `inputs`, with `num_outputs` channels.

    Raises:
      ValueError: `inputs` is not of rank 4, the channels are unknown, or `data_format` is invalid.
    """
    given = locals()
    formats: dict[str | None, str] = {None: "NHWC", "NHWC": "NHWC", "NCHW": "NCHW"}
    if data_format not in formats:
        raise ValueError(f"data_format={data_format!r} should be 'NHWC', 'NCHW' or None")
    data_format = formats[data_format]
    inputs = tf.convert_to_tensor(inputs)
    if inputs.shape.rank != 4:
        raise ValueError(
            f"a masked convolution takes images of rank 4, not input with rank {inputs.shape.rank}"
        )
    channels = _static_size(inputs, data_format.index("C"), "channels")

    def convolve(kernel: tf.Tensor) -> Any:
        return v1.nn.convolution(
            inputs,
            kernel,
            padding.upper(),
            strides=_pair(stride),
            dilation_rate=_pair(rate),
            data_format=data_format,
        )

    return _layer(
        "Conv",
        inputs,
        [*_pair(kernel_size), channels, num_outputs],
        convolve,
        given,
        data_format,
    )


masked_conv2d = masked_convolution


def masked_fully_connected(
    inputs: Any,
    num_outputs: int,
    activation_fn: Callable[[Any], Any] | None = tf.nn.relu,
    normalizer_fn: Callable[..., Any] | None = None,
    normalizer_params: Mapping[str, Any] | None = None,
    weights_initializer: Initializer = _XAVIER,
    weights_regularizer: Regularizer | None = None,
    biases_initializer: Initializer | None = _ZEROS,
    biases_regularizer: Regularizer | None = None,
    reuse: Any = None,
    variables_collections: Collections | None = None,
    outputs_collections: str | Sequence[str] | None = None,
    trainable: bool = True,
    scope: Any = None,
) -> tf.Tensor:
    """Multiplies by a matrix that has a mask, adds biases, and applies an activation.

    Makes the variables `weights`, `mask` (both `[depth, num_outputs]`), `threshold` (scalar) and
    `biases` (`[num_outputs]`) in the scope.

    Arguments are those of `masked_convolution`, with `inputs` of the shape `[..., depth]`, of rank
    2 or more, whose depth has to be known. The default scope is "fully_connected", made unique.

    Returns:
      `[..., num_outputs]`.

    Raises:
      ValueError: `num_outputs` is no whole number, the rank is below 2, or the depth is unknown.
    """
    given = locals()
    if not isinstance(num_outputs, numbers.Integral):
        raise ValueError(f"num_outputs={num_outputs!r} should be an integer")
    inputs = tf.convert_to_tensor(inputs)
    if inputs.shape.rank is None or inputs.shape.rank < 2:
        raise ValueError(
            f"a masked fully connected layer takes rank 2 or more, not rank {inputs.shape.rank}"
        )
    depth = _static_size(inputs, -1, "values in the last dimension")

    def connect(kernel: tf.Tensor) -> Any:
        if inputs.shape.rank == 2:
            return tf.matmul(inputs, kernel)
        return tf.tensordot(inputs, kernel, axes=1)

    return _layer(
        "fully_connected",
        inputs,
        [depth, num_outputs],
        connect,
        given,
    )


def _layer(
    default_scope: str,
    inputs: tf.Tensor,
    kernel_shape: Sequence[int],
    transform: Callable[[tf.Tensor], Any],
    given: Mapping[str, Any],
    data_format: str | None = None,
) -> tf.Tensor:
    """Makes a layer of the caller's arguments, `given`; `transform` takes the masked kernel."""

    def variable(name: str, shape: Sequence[int]) -> Any:
        return v1.get_variable(
            name,
            shape,
            inputs.dtype,
            initializer=given[f"{name}_initializer"],
            regularizer=given[f"{name}_regularizer"],
            trainable=given["trainable"],
            collections=_collections(name, given["variables_collections"]),
        )

    with v1.variable_scope(
        given["scope"], default_scope, [inputs], reuse=given["reuse"]
    ) as entered:
        outputs = transform(apply_mask(variable("weights", kernel_shape), entered))
        if given["normalizer_fn"] is not None:
            outputs = given["normalizer_fn"](outputs, **(given["normalizer_params"] or {}))
        elif given["biases_initializer"] is not None:
            bias = tf.convert_to_tensor(variable("biases", kernel_shape[-1:]))
            outputs = tf.nn.bias_add(outputs, bias, data_format)
        if given["activation_fn"] is not None:
            outputs = given["activation_fn"](outputs)
        keys = given["outputs_collections"]
        v1.add_to_collections((keys,) if isinstance(keys, str) else tuple(keys or ()), outputs)
        return outputs


def _collections(name: str, more: Collections | None) -> list[str]:
    if isinstance(more, Mapping):
        more = more.get(name)
    keys = v1.GraphKeys
    return list(dict.fromkeys([keys.GLOBAL_VARIABLES, keys.MODEL_VARIABLES, *(more or ())]))


def _static_size(inputs: tf.Tensor, axis: int, what: str) -> int:
    size = inputs.shape.as_list()[axis]
    if size is None:
        raise ValueError(
            f"{inputs.name!r} has the shape {inputs.shape}: the number of {what} has to be known"
        )
    return int(size)


def _pair(sizes: int | Sequence[int]) -> list[int]:
    both = sizes if isinstance(sizes, Sequence) else [sizes, sizes]
    return [int(size) for size in both]
