"""Placement of variables by bytes over parameter servers; a worker's own variables stay there."""

import contextlib
import json
import os
import select
import subprocess
import sys

import pytest
import tensorflow as tf

from paramserve.data_plane.placement import (
    BalancedByBytes,
    device_setter,
    on_cluster,
    parameter_bytes,
    variable_bytes,
)

v1 = tf.compat.v1
WORKER = "/job:worker/task:1"
LOCAL = v1.GraphKeys.LOCAL_VARIABLES

both_kinds = pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "ref"])


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


def get(name, shape, **options):
    return v1.get_variable(name, shape, **{"dtype": tf.float32, **options})


# Weights


@both_kinds
@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [((), tf.int64, 8), ((3, 5), tf.float32, 60), ((7,), tf.bfloat16, 14), ((0, 4), tf.float32, 0)],
)
@pytest.mark.usefixtures("graph")
def test_a_variable_weighs_its_elements(use_resource, shape, dtype, size):
    zeros = v1.zeros_initializer()
    variable = get("v", shape, dtype=dtype, use_resource=use_resource, initializer=zeros)
    assert variable_bytes(variable.op) == size


@both_kinds
@pytest.mark.usefixtures("graph")
def test_a_variable_without_a_full_shape_is_refused(use_resource):
    initial = v1.placeholder(tf.float32, [None, 4])
    with (
        on_cluster(2, WORKER),
        pytest.raises(ValueError, match=r"'grown' has the shape .* give it a fully defined shape"),
    ):
        v1.Variable(initial, validate_shape=False, use_resource=use_resource, name="grown")


@pytest.mark.usefixtures("graph")
def test_a_hash_table_weighs_nothing():
    with on_cluster(2, WORKER) as placed:
        get("w", (10,))
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, 0.0)
    assert table.resource_handle.device == "/job:ps/task:1"
    assert placed.bytes_per_ps == (40, 0)


# Balance


def build_uneven(use_resource=True):
    sizes = [1000, 10, 600, 10, 390, 20, 5, 900, 900, 1, 1]
    return [get(f"v{i}", (size,), use_resource=use_resource) for i, size in enumerate(sizes)]


@both_kinds
@pytest.mark.usefixtures("graph")
def test_each_variable_goes_where_fewest_bytes_are(use_resource):
    with on_cluster(3, WORKER) as placed:
        variables = build_uneven(use_resource)
    assert [v.device.removeprefix("/job:ps/task:") for v in variables] == list("01211111200")
    assert parameter_bytes(variables) == dict(enumerate(placed.bytes_per_ps))
    # Greedy placement guarantees that the servers differ by less than the largest variable.
    assert max(placed.bytes_per_ps) - min(placed.bytes_per_ps) <= 4000


def test_two_builds_agree_whoever_builds():
    devices = []
    for worker in ("/job:chief/task:0", "/job:worker/task:7"):
        with tf.Graph().as_default(), on_cluster(3, worker):
            get("mine", (10_000,), collections=[LOCAL])
            devices.append([variable.device for variable in build_uneven()])
    assert devices[0] == devices[1]


@pytest.mark.usefixtures("graph")
def test_partitions_spread():
    with on_cluster(2, WORKER):
        whole = get("p", (9, 4), partitioner=v1.fixed_size_partitioner(3))
    assert [part.device[-1] for part in whole] == ["0", "1", "0"]
    assert parameter_bytes(v1.global_variables()) == {0: 96, 1: 48}


@pytest.mark.usefixtures("graph")
def test_a_pinned_variable_counts_where_it_is_pinned():
    with on_cluster(2, WORKER) as placed:
        with v1.device("/job:ps/task:1"):
            get("pinned", (100,))
        after = get("after", (1,))
    assert placed.bytes_per_ps == (4, 400)
    assert after.device == "/job:ps/task:0"


@pytest.mark.usefixtures("graph")
def test_pinning_to_a_server_that_is_not_there_is_refused():
    with on_cluster(2, WORKER) as placed:
        complaint = "'lost' asks for /job:ps/task:2, but there are only 2"
        with v1.device("/job:ps/task:2"), pytest.raises(ValueError, match=complaint):
            get("lost", (1,))
        get("found", (1,))
    assert placed.bytes_per_ps == (4, 0)


@pytest.mark.usefixtures("graph")
def test_the_global_step_is_on_the_first_server_however_late_it_is_made():
    with on_cluster(2, WORKER):
        get("w", (100,))
        assert v1.train.get_or_create_global_step().device == "/job:ps/task:0"


def test_no_parameter_server_is_refused():
    with pytest.raises(ValueError, match="num_ps=0: variables need at least 1"):
        BalancedByBytes(0)


@pytest.mark.usefixtures("graph")
def test_another_strategy_may_choose():
    with v1.device(device_setter(4, WORKER, strategy=lambda op: 3)):
        assert get("w", (1,)).device == "/job:ps/task:3"
        assert tf.constant(1.0).device == WORKER


@pytest.mark.usefixtures("graph")
def test_placement_ends_with_its_block():
    with on_cluster(2, WORKER):
        pass
    assert get("w", (1,)).device == ""
    assert get("mine", (1,), collections=[LOCAL]).device == ""


# Variables of optimizers


@both_kinds
@pytest.mark.usefixtures("graph")
def test_slots_are_where_their_variable_is_and_count_there(use_resource):
    with on_cluster(2, WORKER) as placed:
        large = get("large", (100,), use_resource=use_resource)
        small = get("small", (10,), use_resource=use_resource)
        adam = v1.train.AdamOptimizer(0.1)
        adam.minimize(tf.reduce_sum(large) + tf.reduce_sum(small))
    for variable in (large, small):
        assert {adam.get_slot(variable, name).device for name in "mv"} == {variable.device}
    powers = [v for v in v1.global_variables() if "power" in v.op.name]
    assert [v.device for v in powers] == [large.device] * 2
    assert placed.bytes_per_ps == (3 * 400 + 8, 3 * 40)
    assert parameter_bytes(v1.global_variables()) == {0: 3 * 400 + 8, 1: 3 * 40}


# Variables of a worker


@pytest.mark.usefixtures("graph")
def test_slots_of_a_local_variable_stay_with_it():
    with on_cluster(2, WORKER) as placed:
        mine = get("mine", (10,), collections=[LOCAL])
        momentum = v1.train.MomentumOptimizer(0.1, 0.9)
        momentum.minimize(tf.reduce_sum(mine), var_list=[mine])
    assert momentum.get_slot(mine, "momentum").device == WORKER
    assert placed.bytes_per_ps == (0, 0)


@both_kinds
@pytest.mark.usefixtures("graph")
def test_local_variables_stay_on_the_worker(use_resource):
    with on_cluster(2, WORKER) as placed:
        get("asked_for", (5,), collections=[LOCAL], use_resource=use_resource)
        v1.get_local_variable("local", (5,), use_resource=use_resource)
        v1.Variable(0.0, collections=[LOCAL], use_resource=use_resource)
        v1.metrics.mean(tf.constant([1.0, 2.0]))
        v1.metrics.auc(tf.constant([True, False]), tf.constant([0.1, 0.2]))
        assert len(v1.local_variables()) == 9
        assert {variable.device for variable in v1.local_variables()} == {WORKER}
    assert placed.bytes_per_ps == (0, 0)
    assert parameter_bytes(v1.local_variables()) == {}


@pytest.mark.usefixtures("graph")
def test_a_local_variable_may_choose_its_device_on_the_worker():
    with on_cluster(2, WORKER), v1.device("/cpu:0"):
        assert get("mine", (1,), collections=[LOCAL]).device == f"{WORKER}/device:CPU:0"


@pytest.mark.usefixtures("graph")
def test_sync_replicas_counts_its_local_step_on_the_worker():
    with on_cluster(2, WORKER):
        step = v1.train.get_or_create_global_step()
        loss = tf.reduce_sum(get("w", (10,)))
        sgd = v1.train.GradientDescentOptimizer(0.1)
        sync = v1.train.SyncReplicasOptimizer(sgd, replicas_to_aggregate=1)
        sync.minimize(loss, step)
    assert {v.op.name: v.device for v in v1.local_variables()} == {"sync_rep_local_step": WORKER}


# Keras


def test_keras_layers_are_placed_like_any_variable():
    tf.keras.utils.clear_session()
    with tf.Graph().as_default(), on_cluster(2, WORKER) as placed:
        layers = [tf.keras.layers.Dense(6), tf.keras.layers.BatchNormalization()]
        model = tf.keras.Sequential([tf.keras.Input((3,)), *layers, tf.keras.layers.Dropout(0.5)])
        output = model(tf.ones((2, 3)), training=True)
        weights = {variable.path.split("/", 1)[1]: variable.value for variable in model.variables}
    assert output.device == WORKER
    assert {weights["dense/kernel"].device, weights["dense/bias"].device} == {
        "/job:ps/task:0",
        "/job:ps/task:1",
    }
    assert all(variable.device.startswith("/job:ps/task:") for variable in weights.values())
    assert parameter_bytes(weights.values()) == dict(enumerate(placed.bytes_per_ps))


# Real servers

SERVER = """
import sys
import tensorflow as tf

server = tf.compat.v1.train.Server({"local": ["localhost:0"]}, "local", 0)
print(server.target, flush=True)
sys.stdin.read()  # Ends with the test, whatever becomes of it.
"""

WORKER_PROGRAM = """
import json, sys
import tensorflow as tf
from paramserve.data_plane.placement import on_cluster
from paramserve.cluster.address import parse_master
from paramserve.cluster.spec import ClusterView, Member, Role, Task

v1 = tf.compat.v1
index, action, *addresses = sys.argv[1:]
task = Task(Role.WORKER, int(index))
view = ClusterView(generation=1, ps=tuple(Member(address, "first") for address in addresses))
server = v1.train.Server({"local": ["localhost:0"]}, "local", 0)
config = v1.ConfigProto(
    cluster_def=view.cluster_def_for(task, parse_master(server.target)),
    device_filters=view.device_filters_for(task),
    intra_op_parallelism_threads=1,
    inter_op_parallelism_threads=1,
    operation_timeout_in_ms=60_000,
)
config.experimental.share_session_state_in_clusterspec_propagation = True

with tf.Graph().as_default(), on_cluster(len(addresses), task.device):
    large = v1.get_variable("large", (1000,), initializer=v1.zeros_initializer())
    small = v1.get_variable("small", (10,), initializer=v1.zeros_initializer(), use_resource=False)
    mine = v1.get_local_variable("mine", (), initializer=v1.zeros_initializer())
    variables = {"large": large, "small": small, "mine": mine}
    initialized = {name: v1.is_variable_initialized(v) for name, v in variables.items()}
    add = tf.group(large.assign_add(tf.fill((1000,), 2.0)), small.assign_add(tf.fill((10,), 3.0)))
    start = tf.group(v1.global_variables_initializer(), v1.local_variables_initializer())
    values = [large[0], small[0]]
    with v1.Session(server.target, config=config) as session:
        report = {name: bool(session.run(flag)) for name, flag in initialized.items()}
        if action == "write":
            session.run(start)
        if action != "look":
            session.run(add)
            report["values"] = [float(value) for value in session.run(values)]
print(json.dumps(report))
"""


@contextlib.contextmanager
def tensorflow_server():
    """Runs a TensorFlow server that knows no cluster, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    try:
        assert select.select([process.stdout], [], [], 120)[0], "the server did not start"
        yield process.stdout.readline().strip().removeprefix("grpc://")
    finally:
        process.kill()
        process.wait(timeout=60)
        process.stdin.close()
        process.stdout.close()


def run_worker(index, action, *addresses):
    finished = subprocess.run(
        [sys.executable, "-c", WORKER_PROGRAM, str(index), action, *addresses],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout.splitlines()[-1])


def test_workers_in_other_processes_share_what_the_servers_hold():
    with tensorflow_server() as first, tensorflow_server() as second:
        written = run_worker(0, "write", first, second)
        assert written == {"large": False, "small": False, "mine": False, "values": [2.0, 3.0]}

        added = run_worker(1, "add", first, second)
        assert added == {"large": True, "small": True, "mine": False, "values": [4.0, 6.0]}

        # Each variable is on one server only: with the servers exchanged, none is found.
        looked = run_worker(2, "look", second, first)
        assert looked == {"large": False, "small": False, "mine": False}
