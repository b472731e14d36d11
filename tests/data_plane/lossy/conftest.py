"""Workers and parameter servers in one process, with any data plane."""

from contextlib import contextmanager

import pytest
import tensorflow as tf

from paramserve.data_plane.lossy.passes import transfer_hooks
from paramserve.data_plane.options import DataPlane
from paramserve.data_plane.placed_graph import PlacedGraph
from paramserve.data_plane.placement import on_cluster
from paramserve.data_plane.prepare import prepare
from support.static_servers import start_servers

v1 = tf.compat.v1


class Cluster:
    """Servers of TensorFlow that take part in nothing else."""

    def __init__(self, num_ps, num_workers):
        self.config = v1.ConfigProto(inter_op_parallelism_threads=2, intra_op_parallelism_threads=1)
        servers = start_servers(ps=num_ps, worker=num_workers, config=self.config)
        self.num_ps = num_ps
        self.targets = [servers["worker", index].target for index in range(num_workers)]


class Worker:
    """A worker's graph and its session with hooks.

    `build` returns a dict with at least "train_op".
    """

    def __init__(self, cluster, build, options, index, *, initialize, **hook_options):
        self.graph = tf.Graph()
        with self.graph.as_default():
            with on_cluster(cluster.num_ps, f"/job:worker/task:{index}"):
                v1.train.get_or_create_global_step()
                self.ops = build()
            init = v1.global_variables_initializer()
            self.read = {each.op.name: tf.identity(each) for each in v1.global_variables()}
            self.train_op = getattr(self.ops["train_op"], "op", self.ops["train_op"])
            prepare(self.graph, options, [self.train_op])
            self.raw = v1.Session(cluster.targets[index], config=cluster.config)
            if initialize:
                self.raw.run(init)
            self.hooks = transfer_hooks(options, **hook_options)
            self.session = v1.train.MonitoredSession(self, self.hooks)

    def create_session(self):
        return self.raw

    def step(self, fetch=None, feed_dict=None):
        """Makes one step; returns the values of `fetch`."""
        ops = [self.train_op] + ([self.ops[fetch]] if fetch else [])
        return self.session.run(ops, feed_dict)[-1]

    def value(self, name):
        """Returns the value on the parameter servers."""
        return self.raw.run(self.read[name])

    def kept(self, handle):
        """Returns the value kept by the worker, by the name of its handle."""
        with self.graph.as_default(), v1.device("/job:worker/task:0"):
            handle = self.graph.get_tensor_by_name(handle)
            return self.raw.run(tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32))

    def sent(self, feed_dict=None):
        """Makes a step, and returns the types of all tensors that crossed in it."""
        metadata = v1.RunMetadata()
        options = v1.RunOptions(output_partition_graphs=True)
        self.raw.run(self.train_op, feed_dict, options=options, run_metadata=metadata)
        nodes = [node for part in metadata.partition_graphs for node in part.node]
        sends = [node for node in nodes if node.op == "_Send"]
        return [tf.as_dtype(node.attr["T"].type).name for node in sends]

    def bytes_sent(self):
        """Bytes of the tensors that cross in a step."""
        tensors = [
            each.tensor
            for each in PlacedGraph(self.graph, [self.train_op]).crossings()
            if not each.tensor.dtype._is_ref_dtype and each.tensor.dtype != tf.resource
        ]
        return sum(each.shape.num_elements() * each.dtype.size for each in tensors)


@pytest.fixture(scope="session")
def cluster():
    """Two parameter servers and two workers."""
    return Cluster(2, 2)


@pytest.fixture
def new_cluster():
    """Servers that hold nothing of other tests."""
    return Cluster(1, 3)


@pytest.fixture
def open_worker(cluster):
    """Opens a worker; `with open_worker(build, top_k=0.1) as worker`."""

    @contextmanager
    def opened(build, index=0, *, initialize=True, on=cluster, hook_options=None, **options):
        data_plane = DataPlane(**options)
        worker = Worker(on, build, data_plane, index, initialize=initialize, **(hook_options or {}))
        with worker.session:
            yield worker
        worker.raw.close()

    return opened


@pytest.fixture
def linear():
    """Builds `loss = sum(x * w)`, whose gradient is the fed `x`, and a small bias.

    "seen" are the weights with which a step computed the gradient.
    """

    def make(optimizer=None, size=1024):
        def build():
            weights = v1.get_variable("w", [size], initializer=v1.zeros_initializer())
            bias = v1.get_variable("b", [4], initializer=v1.zeros_initializer())
            x = v1.placeholder(tf.float32, [size], name="x")
            seen = tf.identity(weights)
            first = x + 0.0 * tf.stop_gradient(seen)
            loss = tf.reduce_sum(first * weights) + tf.reduce_sum(bias)
            step = v1.train.get_global_step()
            chosen = optimizer() if optimizer else v1.train.GradientDescentOptimizer(1.0)
            train_op = chosen.minimize(loss, step)
            return {"x": x, "loss": loss, "train_op": train_op, "seen": seen}

        return build

    return make


@pytest.fixture
def regression():
    """Builds a least-squares problem with a known solution; `w` is of shape [32, 16]."""

    def make(optimizer=None):
        def build():
            inputs = tf.random.stateless_normal([64, 32], [1, 2])
            wanted = tf.matmul(inputs, tf.random.stateless_normal([32, 16], [3, 4]))
            weights = v1.get_variable("w", [32, 16], initializer=v1.ones_initializer())
            error = tf.matmul(inputs, weights) - wanted
            loss = tf.reduce_sum(tf.square(error)) / 128
            chosen = optimizer() if optimizer else v1.train.GradientDescentOptimizer(0.1)
            train_op = chosen.minimize(loss, v1.train.get_global_step())
            return {"train_op": train_op, "loss": loss, "inputs": inputs, "wanted": wanted}

        return build

    return make
