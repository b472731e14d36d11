"""Processes of an ordinary, static cluster."""

from support.static_cluster import fork_server, free_ports, start_cluster

__all__ = ["fork_server", "free_ports", "start_cluster"]
