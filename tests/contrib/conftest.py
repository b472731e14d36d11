"""Processes of an ordinary, static cluster."""

from support.static_cluster import fork_server, start_cluster

__all__ = ["fork_server", "start_cluster"]
