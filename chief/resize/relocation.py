"""The move of a model to another number of parameter servers."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass

import tensorflow as tf

from ...cluster.deadline import Deadline, call_in_background, has_ended
from ...cluster.opening import open_session
from ...cluster.runtime import TensorFlowServer, session_config
from ...cluster.spec import ClusterView, Member
from ...model.graph import container_name
from ...reasons import reason_of
from ..checkpoints.mirrors import RestorePoint
from .layout import CHIEF, Layout
from .moving import Move

log = logging.getLogger(__name__)

# A move that takes longer is given up: a server of it hangs.
MOVE_SECS = 600.0


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
