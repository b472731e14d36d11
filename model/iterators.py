"""Iterators over datasets whose session can be closed at once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from ..tf_internals import change_iterated_datasets, known_options

_is_untuned: ContextVar[bool] = ContextVar("is_untuned", default=False)


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
    token = _is_untuned.set(True)
    try:
        yield
    finally:
        _is_untuned.reset(token)


@functools.cache
def _install() -> None:
    """Replaces the two methods through which each iteration over a dataset in a graph passes."""
    change_iterated_datasets(_as_asked)


def _as_asked(dataset: Any) -> Any:
    if not _is_untuned.get():
        return dataset
    said = known_options(dataset)
    if said.autotune.enabled is not None:
        return dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
