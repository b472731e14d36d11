"""Checks for calls in a model's code that need eager execution; each error names a remedy."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

import keras
import tensorflow as tf

from ..errors import UsageError

_is_building: ContextVar[bool] = ContextVar("is_building", default=False)

_TRAIN = "return TrainSpec(loss=..., keras_model=model), and the job makes the steps"
_EVALUATE = "have TrainSpec.evaluate return metrics of tf.compat.v1.metrics"
_PREDICT = "call the model itself, model(inputs)"
_ITERATE = "take the input with tf.compat.v1.data.make_one_shot_iterator(dataset).get_next()"
_LAYERS = "make preprocessing layers that are given vocabulary=, or mean= and variance="

_MODEL_METHODS = {
    "fit": _TRAIN,
    "train_on_batch": _TRAIN,
    "evaluate": _EVALUATE,
    "test_on_batch": _EVALUATE,
    "predict": _PREDICT,
    "predict_on_batch": _PREDICT,
}
_LEARNED_BY_ADAPT = {
    "Discretization": "bin_boundaries=",
    "IntegerLookup": "vocabulary=",
    "Normalization": "mean= and variance=",
    "StringLookup": "vocabulary=",
    "TextVectorization": "vocabulary=",
}


@contextmanager
def refused_eager_calls() -> Iterator[None]:
    """Rejects calls inside it that need values, where only a graph is built.

    Some of them would do nothing otherwise, and others fail far from the call.

    Raises:
        UsageError: A Keras model is trained, evaluated or asked for predictions by its own methods;
            a preprocessing layer is adapted; or a dataset is iterated over in Python.
    """
    _install()
    token = _is_building.set(True)
    try:
        yield
    finally:
        _is_building.reset(token)


@functools.cache
def _install() -> None:
    for method, remedy in _MODEL_METHODS.items():
        _guard(keras.Model, method, f"{method}() of a Keras model", remedy)
    for name, arguments in _LEARNED_BY_ADAPT.items():
        remedy = f"give the layer its state as {arguments}"
        _guard(getattr(keras.layers, name), "adapt", f"{name}.adapt()", remedy)
    _guard(keras.utils.FeatureSpace, "adapt", "FeatureSpace.adapt()", _LAYERS)
    _guard(tf.data.Dataset, "__iter__", "iter() of a dataset", _ITERATE)
    _guard(tf.data.Dataset, "as_numpy_iterator", "as_numpy_iterator() of a dataset", _ITERATE)


def _guard(owner: type, method: str, call: str, remedy: str) -> None:
    original: Callable[..., Any] = getattr(owner, method)

    @functools.wraps(original)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_building.get() and not (tf.executing_eagerly() or tf.inside_function()):
            raise UsageError(
                f"{call} ({_users_line()}) needs values, but a model is only built here, as a "
                f"graph: {remedy}"
            )
        return original(self, *args, **kwargs)

    setattr(owner, method, guarded)


def _users_line() -> str:
    """Returns the line of the model's code that called, be it by a function of a package."""
    frame: FrameType = sys._getframe(2)
    while frame.f_back is not None and "site-packages" in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
