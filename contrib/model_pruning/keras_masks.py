"""Masks on the kernels of Keras 3 models that are used in a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ...tf_internals import stored_value, with_sublayers
from .masks import apply_mask


def is_kernel(variable: keras.Variable) -> bool:
    """Returns whether a variable is named as Keras names kernels: dense, convolution, recurrent."""
    return bool(variable.name.endswith("kernel"))


def mask_keras_model(
    model: keras.layers.Layer, select: Callable[[keras.Variable], bool] = is_kernel
) -> None:
    """Puts masks on the kernels of a model or layer: calls from now on use mask * kernel.

    The masks are `apply_mask`'s, so that `Pruning` and `strip_pruning_vars_fn` work as for other
    weights. Layers that are not built yet get their masks in their first call, so make the ops of
    `Pruning` after the model was called. A layer inside another one is masked as well, in its own
    calls. A layer that reads another layer's kernel reads it without its mask. Regularizers get the
    kernel without its mask, as everywhere.

    Example::

        model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)])
        mask_keras_model(model)
        logits = model(images)

    Args:
      model: A Keras 3 model or layer, made in the default graph. Outputs of earlier calls stay
        unchanged.
        they are.
      select: Chooses the trainable variables that get masks.

    Raises:
      ValueError: There is no graph: the program runs eagerly.
    """
    if tf.executing_eagerly():
        raise ValueError(
            f"masks for {model.name!r} need a graph: build inside `with tf.Graph().as_default():`"
        )
    for layer in with_sublayers(model):
        if not isinstance(layer.call, _MaskedCall):
            layer.call = _MaskedCall(layer, select)


class _MaskedCall:
    """A layer's `call`, in which chosen variables have the values of their masked products."""

    def __init__(self, layer: keras.layers.Layer, select: Callable[[keras.Variable], bool]) -> None:
        self._layer = layer
        self._select = select
        self._call = layer.call
        self._masked: dict[int, tuple[keras.Variable, tf.Tensor]] = {}
        if layer.built:
            self._mask_new()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Building may have made more of them.
        mask_keras_model(self._layer, self._select)
        self._mask_new()
        if not self._masked:
            return self._call(*args, **kwargs)
        with keras.StatelessScope(state_mapping=list(self._masked.values())) as scope:
            outputs = self._call(*args, **kwargs)
        self._write_back(scope)
        return outputs

    def _mask_new(self) -> None:
        for variable in _own_variables(self._layer):
            if id(variable) in self._masked or not self._select(variable):
                continue
            # `value` may be cast by a mixed precision policy.
            weight = stored_value(variable)
            # While Keras only infers shapes, variables are not made yet.
            if isinstance(weight, tf.Variable):
                # The first call may lie in the body of a loop over time.
                with tf.init_scope():
                    masked = apply_mask(weight, weight.op.name)
                self._masked[id(variable)] = (variable, masked)

    def _write_back(self, scope: keras.StatelessScope) -> None:
        """Makes the call's assignments, which were only recorded inside the scope."""
        for variable in self._layer.variables:
            value = scope.get_current_value(variable)
            if value is not None and id(variable) not in self._masked:
                variable.assign(value)


def _own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    sublayers = list(with_sublayers(layer))[1:]
    others = {id(variable) for each in sublayers for variable in each.variables}
    return [v for v in layer.trainable_variables if id(v) not in others]
