"""This process's TensorFlow server, and the session configuration for a cluster view."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..errors import UsageError
from .address import join_address, parse_address
from .binding import confine_to_loopback, is_loopback
from .memory import keep_freed_memory
from .spec import ClusterView, Task
from .startup_noise import has_gpus


@dataclass(frozen=True)
class TensorFlowServer:
    """A running TensorFlow server; it lives as long as its process.

    Attributes:
        target: Master string for sessions of this process, as "grpc://10.0.0.7:2222". A session's
            cluster has to name this task by the same host and port.
        address: `host:port` under which other tasks reach it.
    """

    target: str
    address: str
    server: Any


def start_server(host: str, port: int = 0, option: str = "--port") -> TensorFlowServer:
    """Starts the server that every role runs, without a cluster definition.

    It is booted as the only task of a job "local", so that any session can give it any place in any
    cluster: the session's configuration defines the cluster. A server booted under the name that a
    session gives it would refuse that session. TensorFlow lets it listen at all addresses of this
    machine, whatever `host` is; that of a loopback host is confined to loopback.

    Args:
        host: Host name or address under which other tasks reach this process.
        port: TCP port; 0 takes a free one.
        option: Gives the port, for the error.

    Raises:
        UsageError: The port is taken, or the host does not resolve here.
    """
    is_local = is_loopback(host)
    keep_freed_memory()
    # Otherwise TensorFlow keeps calling a lost peer: a session that lost one could never be closed,
    # and would stay behind with its threads.
    os.environ.setdefault("GRPC_FAIL_FAST", "true")
    try:
        server = tf.compat.v1.train.Server(
            {"local": [join_address(host, port)]}, "local", 0, config=device_config()
        )
    except tf.errors.OpError as error:
        raise UsageError(
            f"TensorFlow's server could not listen on port {port}: is it in use? "
            f"Give another {option}, or 0 for a free one"
        ) from error
    bound = parse_address(server.target.removeprefix("grpc://"))
    if is_local:
        confine_to_loopback(bound.port)
    return TensorFlowServer(server.target, join_address(host, bound.port), server)


def device_config() -> Any:
    """Returns the `ConfigProto` of a server or session of this process alone, or None.

    On a machine without GPUs, a look for some would log an error of CUDA.
    """
    return None if has_gpus() else tf.compat.v1.ConfigProto(device_count={"GPU": 0})


def session_config(view: ClusterView, task: Task, address: str, *, optimize: bool = True) -> Any:
    """Returns the configuration for a session of `task` over the parameter servers of `view`.

    State on the parameter servers is shared by all sessions with such a configuration, whichever
    tasks they belong to; parameter servers need no cluster definition.

    Args:
        view: The generation's parameter servers.
        task: The task that opens the session.
        address: `host:port` of that task's own server. If it is one of the parameter servers, the
            session knows it as such and by no other name.
        optimize: Whether TensorFlow optimizes the graph for each different run. That takes longer
            than it saves where few things are run more than once.

    Returns:
        A `tf.compat.v1.ConfigProto`.
    """
    task = view.server_at(address) or task
    config = tf.compat.v1.ConfigProto(
        cluster_def=view.cluster_def_for(task, address),
        device_filters=view.device_filters_for(task),
        allow_soft_placement=True,
    )
    config.experimental.share_session_state_in_clusterspec_propagation = True
    config.graph_options.rewrite_options.disable_meta_optimizer = not optimize
    return config
