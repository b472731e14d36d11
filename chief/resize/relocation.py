"""The model on a number of parameter servers, and the moment in which it moves to another."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from ...cluster.deadline import Deadline, call_in_background, has_ended
from ...cluster.opening import open_session
from ...cluster.runtime import TensorFlowServer, session_config
from ...cluster.spec import ClusterView, Member, Role, Task
from ...data_plane.prepare import prepare
from ...data_plane.traffic import Traffic, find_traffic
from ...jobs.options import JobOptions
from ...loops.loop import LoopContext
from ...model.graph import GraphOptions, TrainGraph, build_train_graph, container_name
from ...model.input.source import InputSource, WholeInput
from ...model.spec import BuildFn, TaskContext
from ...reasons import reason_of
from ..checkpoints.mirrors import Mirrors, RestorePoint
from .moving import Move

CHIEF = Task(Role.CHIEF, 0)
log = logging.getLogger(__name__)
# A move that takes longer is given up: a server of it hangs.
MOVE_SECS = 600.0


@dataclass(frozen=True)
class Layout:
    """The chief's view of the model on some number of parameter servers.

    Attributes:
        number: Counts the layouts of a job; its variables lie in a container of that number.
        num_ps: Parameter servers.
        built: The finalized graph.
        mirrors: Restore points in memory; None: there are none.
        traffic: Traffic between each server and a worker in a step, by index.
    """

    number: int
    num_ps: int
    built: TrainGraph
    mirrors: Mirrors | None
    traffic: Mapping[int, Traffic]


def build_layout(
    build: BuildFn,
    options: JobOptions,
    num_ps: int,
    number: int,
    task: LoopContext,
    source: InputSource | None = None,
) -> Layout:
    """Builds the chief's graph.

    Args:
        build: The user's build function.
        options: The job.
        num_ps: Parameter servers.
        number: Of the layout.
        task: Where the training loop runs.
        source: Counts the files of the input; None: they are counted each time.

    Raises:
        UsageError: See `build_train_graph`.
        JobFailed: The build function failed.
    """
    built = build_train_graph(
        build,
        TaskContext(
            *("chief", 0, options.trainers, num_ps, options.sync, options.params),
            input=source or WholeInput(),
        ),
        worker_device=CHIEF.device,
        options=GraphOptions(
            aggregate=options.aggregate,
            data_plane=options.data_plane,
            defaults=options,
        ),
        task=task,
        layout=number,
    )
    with built.container():
        mirrors = Mirrors(built, num_ps, CHIEF) if options.mirror_secs else None
        prepare(built.graph, options.data_plane, built.steps)
    built.graph.finalize()
    return Layout(number, num_ps, built, mirrors, find_traffic(built.graph, [built.train_op]))


@dataclass(frozen=True)
class Resized:
    """A stop of training between two steps, for the model to move.

    Attributes:
        servers: The new parameter servers, by index.
        layout: The new layout.
        move: The move to it.
        point: The state of training.
    """

    servers: tuple[Member, ...]
    layout: Layout
    move: Move
    point: RestorePoint


def move_model(
    server: TensorFlowServer, view: ClusterView, resized: Resized, max_wait_secs: float
) -> None:
    """Copies every variable from its old place to its new one.

    The old layout keeps its values, so that nothing is lost if this fails.

    Args:
        server: The chief's own server.
        view: The present parameter servers.
        resized: The destination.
        max_wait_secs: Seconds to wait for the servers to answer.

    Raises:
        tf.errors.OpError: A parameter server is gone.
    """
    # One list begins with the other: servers are added, or taken away, at its end.
    both = max(view.ps, resized.servers, key=len)
    config = session_config(ClusterView(view.generation, both), CHIEF, server.address)
    deadline = Deadline.after(max_wait_secs)
    session = open_session(server.target, resized.move.graph, config, deadline)
    try:
        limit = tf.compat.v1.RunOptions(timeout_in_ms=int(MOVE_SECS * 1000))
        session.run(resized.move.op, options=limit)
    finally:
        session.close()
    log.info("the model has moved to %d parameter servers", len(resized.servers))


def drop_layout(view: ClusterView, number: int, max_wait_secs: float = 0.0) -> None:
    """Frees the variables of a layout on its servers.

    A late step there finds no variables to update.

    Args:
        view: The servers.
        number: Number of the layout.
        max_wait_secs: Seconds to wait for it; it continues beyond them.
    """

    def drop(address: str) -> None:
        try:
            tf.compat.v1.Session.reset(f"grpc://{address}", [container_name(number)])
        except tf.errors.OpError as error:
            log.warning("%s keeps its variables of the old layout: %s", address, reason_of(error))

    calls = [
        call_in_background("drop-layout", functools.partial(drop, member.address))
        for member in view.ps
    ]
    deadline = Deadline.after(max_wait_secs)
    for call in calls:
        has_ended(call, deadline.remaining_secs())
