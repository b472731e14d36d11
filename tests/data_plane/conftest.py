"""A small cluster in this process, and training runs on it that can be compared."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
import tensorflow as tf

from paramserve.data_plane.options import DataPlane
from paramserve.data_plane.placement import on_cluster
from paramserve.data_plane.prepare import prepare
from support.static_servers import start_servers

v1 = tf.compat.v1
THREADS = {"inter_op_parallelism_threads": 2, "intra_op_parallelism_threads": 1}


@dataclass(frozen=True)
class Run:
    """The results of a training run.

    Attributes:
        weights: Values of the global variables, by name.
        received: For each op type, how many of it ran in the last step: "_Recv", "Split", ...
        fetched: The fetched values of each step.
    """

    weights: dict
    received: Counter = field(default_factory=Counter)
    fetched: list = field(default_factory=list)

    def equals(self, other):
        """Returns whether all weights are the same to the last bit."""
        return self.weights.keys() == other.weights.keys() and all(
            value.tobytes() == other.weights[name].tobytes() for name, value in self.weights.items()
        )


class Cluster:
    """Two parameter servers and one worker, which serve all tests."""

    def __init__(self):
        self._servers = start_servers(ps=2, worker=1, config=v1.ConfigProto(**THREADS))
        self.target = self._servers["worker", 0].target

    def train(self, build, data_plane=None, *, num_ps=2, steps=4, run=None):
        """Builds a model in a new graph and trains it.

        Args:
            build: Makes the model, and returns the fetches of a step: the train op, or a list that
                begins with it.
            data_plane: Changes of the graph; None: no change.
            num_ps: Parameter servers that hold variables.
            steps: Training steps.
            run: Called with the session in place of the steps; its result takes the place of the
                fetched values.
        """
        v1.Session.reset(self.target)  # Variables of other tests, of the same name.
        with tf.Graph().as_default() as graph:
            with on_cluster(num_ps, "/job:worker/task:0"):
                built = build()
            fetches = list(built) if isinstance(built, (list, tuple)) else [built]
            initialize = v1.global_variables_initializer()
            values = {v.op.name: _value(v) for v in v1.global_variables()}
            if data_plane is not None:
                prepare(graph, data_plane, fetches[:1])
            with v1.Session(self.target, config=v1.ConfigProto(**THREADS)) as session:
                session.run(initialize)
                if run is not None:
                    fetched = run(session, fetches)
                else:
                    fetched = [session.run(fetches) for _ in range(steps - 1)]
                ran = self._count(session, fetches)
                return Run(session.run(values), ran, fetched)

    @staticmethod
    def _count(session, fetches):
        """Makes a step, and counts the ops in it by type."""
        options = v1.RunOptions(output_partition_graphs=True)
        metadata = v1.RunMetadata()
        session.run(fetches, options=options, run_metadata=metadata)
        return Counter(node.op for part in metadata.partition_graphs for node in part.node)


def _value(variable):
    return variable.read_value() if hasattr(variable, "read_value") else variable.value()


@pytest.fixture(scope="session")
def cluster():
    return Cluster()


@pytest.fixture(scope="session")
def compare(cluster):
    """Trains a model plainly and packed, and returns both runs."""

    def compare(build, *, num_ps=2, steps=4, **options):
        plain = cluster.train(build, num_ps=num_ps, steps=steps)
        packed = cluster.train(build, DataPlane(**options), num_ps=num_ps, steps=steps)
        return plain, packed

    return compare
