"""Scopes in which a model's code is called: without tuning threads, and without calls that fail."""

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
from ..tf_internals import change_iterated_datasets, known_options
from .spec import TrainSpec

_is_untuned: ContextVar[bool] = ContextVar("is_untuned", default=False)
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
v1 = tf.compat.v1
_Sync = v1.train.SyncReplicasOptimizer
# Such an optimizer has a local variable of this name in each worker.
_LOCAL_STEP = "sync_rep_local_step"


@contextmanager
def untuned() -> Iterator[None]:
    """Iterates datasets inside it without tf.data's tuning thread, unless they ask for it.

    A session destroys its iterators when it is closed. Meanwhile it holds a lock of the server that
    the next session needs. The tuning thread is woken a moment before it can see that it has to
    end. If it checks in between, it sleeps for the rest of its period, up to a minute, and a
    recovery waits for it. See `Model::OptimizeLoop` and `CancellationManager` in TensorFlow 2.21.
    Without the thread, `tf.data.AUTOTUNE` means one call per core.

    A dataset asks for the thread with `options.autotune.enabled = True`.
    """
    _install()
    with _set(_is_untuned):
        yield


def _as_asked(dataset: Any) -> Any:
    if not _is_untuned.get():
        return dataset
    said = known_options(dataset)
    if said.autotune.enabled is not None:
        return dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


@contextmanager
def refused_eager_calls() -> Iterator[None]:
    """Rejects calls inside it that need values, where only a graph is built.

    Some of them would do nothing otherwise, and others fail far from the call.

    Raises:
        UsageError: A Keras model is trained, evaluated or asked for predictions by its own methods;
            a preprocessing layer is adapted; or a dataset is iterated over in Python.
    """
    _install()
    with _set(_is_building):
        yield


@contextmanager
def _set(variable: ContextVar[bool]) -> Iterator[None]:
    token = variable.set(True)
    try:
        yield
    finally:
        variable.reset(token)


@functools.cache
def _install() -> None:
    """Replaces TensorFlow's and Keras' methods, which ask the two variables from now on."""
    change_iterated_datasets(_as_asked)
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


def refuse_sync_replicas(spec: TrainSpec) -> None:
    """Refuses a `SyncReplicasOptimizer`, also inside another optimizer or a hook.

    Its workers would wait for the tokens of a chief of its own, and the service has none.

    Raises:
        UsageError: There is one.
    """
    given = [spec.optimizer, *spec.hooks, *tf.nest.flatten(list(spec.loop_args.values()))]
    if found := [each for one in given for each in _inside(one) if isinstance(each, _Sync)]:
        raise _refusal(vars(found[0]).get("_opt"))


def refuse_sync_steps() -> None:
    """Refuses a `SyncReplicasOptimizer` that has applied gradients in the current graph.

    Raises:
        UsageError: There is one.
    """
    if any(_LOCAL_STEP in variable.op.name for variable in v1.local_variables()):
        raise _refusal(None)


def _inside(given: Any, depth: int = 4) -> list[Any]:
    """Returns an optimizer or a hook, and the optimizers and hooks among its attributes."""
    kinds = (v1.train.Optimizer, v1.train.SessionRunHook)
    if not isinstance(given, kinds) or not depth:
        return []
    kept = [each for value in vars(given).values() for each in _inside(value, depth - 1)]
    return [given, *kept]


def _refusal(inner: Any) -> UsageError:
    inner = f"its {type(inner).__name__}" if inner is not None else "the optimizer inside it"
    return UsageError(
        "the model has a SyncReplicasOptimizer, but the service aggregates gradients itself "
        f"(--sync): give {inner} as TrainSpec.optimizer, without the hook of "
        "make_session_run_hook, and its replicas_to_aggregate as --replicas-to-aggregate"
    )
