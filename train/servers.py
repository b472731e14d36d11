"""`Server`: the local server's job has the name that its documentation gives it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..cluster.memory import keep_freed_memory


class Server(tf.compat.v1.train.Server):
    """A TensorFlow server in this process, for one task of a cluster.

    Takes the arguments of `tf.compat.v1.train.Server`. TensorFlow cannot stop a server: it runs
    until the process ends.

    Args:
        server_or_cluster_def: A `ServerDef`, `ClusterDef`, `ClusterSpec`, or a dict that maps the
            names of jobs to lists of addresses, "host:port".
        job_name: The job of this server; may be left out if there is only one.
        task_index: The task of this server; may be left out if there is only one.
        protocol: "grpc" if None.
        config: A `tf.compat.v1.ConfigProto` for all sessions that run here, or None.
        start: Whether to start it at once.
    """

    def __init__(
        self,
        server_or_cluster_def: Any,
        job_name: str | None = None,
        task_index: int | None = None,
        protocol: str | None = None,
        config: Any = None,
        start: bool = True,
    ) -> None:
        keep_freed_memory()
        super().__init__(server_or_cluster_def, job_name, task_index, protocol, config, start)

    @staticmethod
    def create_local_server(
        config: Any = None, start: bool = True, *, job_name: str = "local"
    ) -> Server:
        """Makes a server that is a cluster of its own, on a free port.

        Args:
            config: A `tf.compat.v1.ConfigProto`, or None.
            start: Whether to start it at once.
            job_name: The name of its job. TensorFlow 2 names it "localhost", so that a graph with
                the documented device "/job:local" fails.
        """
        return Server({job_name: ["localhost:0"]}, protocol="grpc", config=config, start=start)
