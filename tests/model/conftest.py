"""A cluster in one process, on which real graphs run."""

from support.local_cluster import (
    build_graph,
    cluster,
    cluster_of_one,
    cluster_of_two,
    two_ps_cluster,
)

__all__ = ["build_graph", "cluster", "cluster_of_one", "cluster_of_two", "two_ps_cluster"]
