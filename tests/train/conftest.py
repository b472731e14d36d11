"""Fixtures of the tests of `paramserve.train`: a graph each, and one cluster for all."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

from paramserve import train
from support.ports import free_cluster

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(7)
        yield graph


@pytest.fixture
def logdir(tmp_path):
    return str(tmp_path / "model")


@pytest.fixture(scope="session")
def servers():
    """A parameter server and a worker in this process; a server cannot be stopped."""
    cluster = free_cluster(ps=1, worker=1)
    ps, worker = (train.Server(cluster, job, 0) for job in cluster)
    return SimpleNamespace(spec=train.ClusterSpec(cluster), ps=ps, worker=worker)


@pytest.fixture
def cluster(servers):
    """The cluster, without what earlier tests left on its parameter server."""
    v1.Session.reset(servers.worker.target)
    return servers


@pytest.fixture
def events():
    def read(directory):
        files = sorted(Path(directory).glob("events.out.tfevents.*"))
        return [event for file in files for event in train.summary_iterator(str(file))]

    return read


@pytest.fixture
def summaries(events):
    """Reads the steps at which each tag was written."""

    def read(directory):
        steps = {}
        for event in events(directory):
            for value in event.summary.value:
                steps.setdefault(value.tag, []).append(event.step)
        return steps

    return read
