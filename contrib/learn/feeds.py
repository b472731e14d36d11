"""Runs of a model without training: some outputs, for some feeds, from a checkpoint."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1

# Seconds that queue runners get to end.
STOP_GRACE_SECS = 120.0

Feed = Mapping[Any, Any] | None


def run_feeds_iter(
    output_dict: Mapping[str, Any],
    feed_dicts: Iterable[Feed],
    restore_checkpoint_path: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Runs a model once for each feed, in one session, and yields the outputs.

    Between the values the session is the default one: `tensor.eval()` works in the loop's body.

    Args:
        output_dict: Tensors of one graph to run, by names of your choice.
        feed_dicts: The feeds of each run.
        restore_checkpoint_path: A checkpoint, or a directory whose newest one is taken; by default
            the variables are initialized.

    Returns:
        An iterator over dicts from the names to numpy values. The session is closed when it ends,
        and when it is dropped before.

    Raises:
        ValueError: `output_dict` or `feed_dicts` is empty, the outputs are not of one graph, or
            there is no such checkpoint.
        TypeError: Raised by the iterator: a feed has a key that cannot be fed, such as None.
    """
    if not output_dict:
        raise ValueError(f"output_dict={output_dict!r} is invalid: name something to run")
    if not feed_dicts:
        raise ValueError(f"feed_dicts={feed_dicts!r} is invalid: give at least one, may be [None]")
    return _run_feeds(_graph_of(output_dict), output_dict, feed_dicts, restore_checkpoint_path)


def run_feeds(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """Runs `run_feeds_iter`, and returns a list."""
    return list(run_feeds_iter(*args, **kwargs))


def run_n(
    output_dict: Mapping[str, Any],
    feed_dict: Feed = None,
    restore_checkpoint_path: str | None = None,
    n: int = 1,
) -> list[dict[str, Any]]:
    """Runs a model `n` times with the same feed.

    Args:
        output_dict: See `run_feeds_iter`.
        feed_dict: The feed of all runs.
        restore_checkpoint_path: See `run_feeds_iter`.
        n: Number of runs.

    Returns:
        A list of `n` dicts from the names in `output_dict` to numpy values.
    """
    return run_feeds(output_dict, itertools.repeat(feed_dict, n), restore_checkpoint_path)


def infer(
    restore_checkpoint_path: str | None, output_dict: Mapping[str, Any], feed_dict: Feed = None
) -> dict[str, Any]:
    """Runs a model once.

    Args:
        restore_checkpoint_path: See `run_feeds_iter`; None initializes the variables.
        output_dict: See `run_feeds_iter`.
        feed_dict: The feed.

    Returns:
        A dict from the names in `output_dict` to numpy values.
    """
    [outputs] = run_feeds(output_dict, [feed_dict], restore_checkpoint_path)
    return outputs


def _graph_of(output_dict: Mapping[str, Any]) -> tf.Graph:
    graphs = {}
    for name, output in output_dict.items():
        graph = getattr(output, "graph", None)
        if graph is None:
            raise ValueError(
                f"output_dict[{name!r}] is {output!r}, expected a tensor, op or variable of a graph"
            )
        graphs[id(graph)] = graph
    if len(graphs) > 1:
        raise ValueError(f"output_dict {sorted(output_dict)} has outputs of {len(graphs)} graphs")
    [graph] = graphs.values()
    return graph


def _run_feeds(
    graph: tf.Graph,
    output_dict: Mapping[str, Any],
    feed_dicts: Iterable[Feed],
    restore_checkpoint_path: str | None,
) -> Iterator[dict[str, Any]]:
    # A generator must not leave the graph the default one between its values, so there is no
    # `with`.
    session = v1.Session(graph=graph)
    coordinator = v1.train.Coordinator()
    threads: list[Any] = []
    try:
        with graph.as_default():
            _initialize(session, graph, restore_checkpoint_path)
            threads = v1.train.start_queue_runners(session, coordinator)
        for feed_dict in feed_dicts:
            outputs = session.run(output_dict, feed_dict)
            with session.as_default():
                yield outputs
    finally:
        coordinator.request_stop()
        try:
            coordinator.join(threads, stop_grace_period_secs=STOP_GRACE_SECS)
        finally:
            session.close()


def _initialize(session: tf.compat.v1.Session, graph: tf.Graph, checkpoint: str | None) -> None:
    """Initializes by ops that exist, so that further calls make no further ones."""
    keys = v1.GraphKeys
    resources = [*graph.get_collection(keys.RESOURCES), *graph.get_collection(keys.LOCAL_RESOURCES)]
    session.run([resource.create for resource in resources])
    if checkpoint:
        restore_variables(session, checkpoint)
    else:
        session.run([each.initializer for each in graph.get_collection(keys.GLOBAL_VARIABLES)])
    session.run([each.initializer for each in graph.get_collection(keys.LOCAL_VARIABLES)])
    session.run(graph.get_collection(keys.TABLE_INITIALIZERS))


def find_checkpoint(path: str) -> str:
    """Returns a checkpoint's path without suffix.

    Args:
        path: A checkpoint's path, or a directory, whose newest checkpoint is taken.

    Raises:
        ValueError: There is no checkpoint.
    """
    checkpoint = tf.train.latest_checkpoint(path) if tf.io.gfile.isdir(path) else path
    if checkpoint is None or not v1.train.checkpoint_exists(checkpoint):
        raise ValueError(f"{path!r} is neither a checkpoint nor a directory with one")
    return checkpoint


def restore_variables(session: tf.compat.v1.Session, path: str, saver: Any = None) -> None:
    """Restores the variables of the default graph.

    Args:
        session: A session of that graph.
        path: See `find_checkpoint`.
        saver: The saver; by default a new one for all global variables and other objects that
            can be saved.

    Raises:
        ValueError: There is no checkpoint.
        tf.errors.OpError: It lacks a variable, or has one of another shape.
    """
    if saver is None:
        saver = v1.train.Saver(sharded=True, allow_empty=True)
    saver.restore(session, find_checkpoint(path))
