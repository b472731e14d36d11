"""Iterators over datasets whose session can be closed at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf
from tensorflow.python.data.ops.dataset_ops import DatasetV2

v1 = tf.compat.v1

_is_untuned: ContextVar[bool] = ContextVar("is_untuned", default=False)


@contextmanager
def untuned() -> Iterator[None]:
    """Iterates datasets inside it without tf.data's tuning thread, unless they ask for it.

    A session destroys its iterators when it is closed, and holds a lock of the server meanwhile
    which the next session needs. The tuning thread is woken for that a moment before it can see
    that it is to end: if it looks in between, it sleeps out its period, of up to a minute
    (`Model::OptimizeLoop` and `CancellationManager` in TensorFlow 2.21), and a recovery waits for
    that. Without the thread, `tf.data.AUTOTUNE` stands for one call per core.

    A dataset asks for the thread with `options.autotune.enabled = True`.
    """
    _install()
    token = _is_untuned.set(True)
    try:
        yield
    finally:
        _is_untuned.reset(token)


@functools.cache
def _install() -> None:
    """Replaces the two methods through which each iteration over a dataset in a graph passes."""
    finish: Callable[..., Any] = DatasetV2._apply_debug_options  # Not public.
    make_initializer: Callable[..., Any] = v1.data.Iterator.make_initializer
    DatasetV2._apply_debug_options = lambda dataset: finish(_as_asked(dataset))
    v1.data.Iterator.make_initializer = lambda iterator, dataset, name=None: make_initializer(
        iterator, _as_asked(dataset), name
    )


def _as_asked(dataset: Any) -> Any:
    if not _is_untuned.get():
        return dataset
    # What `dataset.options()` says, which warns in a graph that it may not be all.
    said = getattr(dataset, "_dataset", dataset)._options_attr
    if said.autotune.enabled is not None:
        return dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
