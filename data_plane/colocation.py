"""Workers that hold a partition of the parameters each, in an ordinary, static cluster.

With as many parameter servers as workers, each in a process of its own, every byte of the
parameters and gradients crosses. Where each worker holds a partition, its own partition does not
cross. As in a ring all-reduce, each of n workers pulls and pushes (n - 1)/n of the bytes. It has
1/n of the optimizer's state.

To TensorFlow such a worker is a parameter server: it is a task of the job "ps", and of no other,
since a session may know a server by one name only.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from ..cluster.deadline import Deadline
from ..cluster.opening import open_session
from ..cluster.session import PREEMPTION_ERRORS
from ..cluster.spec import Role, Task
from ..errors import WaitTimeout
from .placed_graph import set_home
from .placement import BalancedByBytes, on_cluster

v1 = tf.compat.v1
log = logging.getLogger(__name__)


@contextlib.contextmanager
def on_workers(
    num_workers: int, index: int, *, max_shard_bytes: int | None = None
) -> Iterator[BalancedByBytes]:
    """Places variables built inside on all workers, and other ops on the worker that builds them.

    Example, in worker `index`; worker 0 is the chief::

        server = tf.compat.v1.train.Server({"ps": addresses}, "ps", index)
        with tf.Graph().as_default(), on_workers(len(addresses), index):
            train_op = build_model()
            contrib.training.train(train_op, logdir, master=server.target, is_chief=index == 0)
        stay_until_all_are_done(server.target, len(addresses), index)

    Enter it inside `tf.Graph().as_default()`. `paramserve.data_plane.placement.on_cluster`
    documents the placement and the partitioning of large variables, which balances a few of them.
    A `SyncReplicasOptimizer` with `one_gradient_per_worker` needs the argument `worker_index`,
    since there is no job "worker" to take it from.

    Args:
        num_workers: Workers that hold a partition of the parameters, at least 1.
        index: The worker whose graph is built.
        max_shard_bytes: Bytes that a variable, or a partition of one, may have; None: any.

    Yields:
        The strategy, which counts the bytes placed so far.

    Raises:
        ValueError: `index` is not one of the workers.
    """
    if not 0 <= index < num_workers:
        raise ValueError(f"index={index} with num_workers={num_workers}: indices count from 0")
    worker = Task(Role.PS, index).device
    set_home(v1.get_default_graph(), worker)
    with on_cluster(num_workers, worker, max_shard_bytes=max_shard_bytes) as strategy:
        yield strategy


def stay_until_all_are_done(
    master: str,
    num_workers: int,
    index: int,
    *,
    config: Any = None,
    max_wait_secs: float | None = 7200,
) -> None:
    """Keeps this worker's parameters available until every worker has called this: a barrier.

    Call it when training is over, before the process ends. Other workers may still need the
    parameters that this one holds; the chief needs them to save a checkpoint.

    Args:
        master: Master string of this task's server.
        num_workers: Workers that hold a partition of the parameters.
        index: This worker's index.
        config: A `tf.compat.v1.ConfigProto`, or None.
        max_wait_secs: Seconds to wait for the other workers; None waits without a limit.

    Raises:
        WaitTimeout: A worker was not done in time; the message names it.
    """
    deadline = Deadline.after(max_wait_secs)
    workers = range(num_workers)
    graph = tf.Graph()
    with graph.as_default():
        tell = [_done_queue(at=worker, of=index).enqueue(True) for worker in workers]
        hear = [_done_queue(at=index, of=worker).dequeue() for worker in workers]
    session = open_session(master, graph, config, deadline)
    try:
        for worker in workers:
            try:
                session.run(tell[worker])
            except PREEMPTION_ERRORS:
                log.warning("worker %d is gone already", worker)
        for worker in workers:
            _hear(session, hear[worker], worker, deadline)
    finally:
        session.close()


def _done_queue(*, at: int, of: int) -> Any:
    """Returns the queue on worker `at` in which worker `of` reports that it is done."""
    with v1.device(Task(Role.PS, at).device):
        return v1.FIFOQueue(100, tf.bool, shapes=(), shared_name=f"paramserve/done/{of}")


def _hear(session: Any, dequeue: Any, worker: int, deadline: Deadline) -> None:
    try:
        session.run(dequeue, options=_timeout(deadline))
    except tf.errors.DeadlineExceededError as error:
        raise WaitTimeout(
            f"max_wait_secs={deadline.max_wait_secs:g} ran out: worker {worker} is not done; is "
            "it running?"
        ) from error


def _timeout(deadline: Deadline) -> Any:
    """Returns options of a call that ends with the deadline; to TensorFlow 0 ms is no limit."""
    left = deadline.remaining_secs()
    return v1.RunOptions(timeout_in_ms=0 if left == float("inf") else max(1, int(left * 1000)))
