"""The servers of a static cluster, all in one process; a server cannot be stopped."""

import tensorflow as tf

from .ports import free_cluster


def start_servers(*, host="127.0.0.1", config=None, server=tf.compat.v1.train.Server, **jobs):
    """Starts servers: `start_servers(ps=2, worker=1)`; gives them by job and index."""
    cluster = free_cluster(host, **jobs)
    return {
        (job, index): server(cluster, job, index, config=config)
        for job, count in jobs.items()
        for index in range(count)
    }
