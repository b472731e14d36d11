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

    A session destroys its iterators when it is closed. Meanwhile it holds a lock of the server that
    the next session needs. The tuning thread is woken a moment before it can see that it has to
    end. If it checks in between, it sleeps for the rest of its period, up to a minute, and a
    recovery waits for it (`Model::OptimizeLoop` and `CancellationManager` in TensorFlow 2.21).
    Without the thread, `tf.data.AUTOTUNE` means one call per core.

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
