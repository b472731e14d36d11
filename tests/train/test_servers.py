"""Servers, and where variables go in a cluster."""

import pytest
import tensorflow as tf

from paramserve import train
from paramserve.contrib import training
from paramserve.data_plane.placement import BalancedByBytes
from support.static_servers import start_servers

v1 = tf.compat.v1


@pytest.mark.original_api("tf.train.Server")
def test_a_server_runs_the_steps_of_any_session_that_knows_its_address(servers):
    v1.Session.reset(servers.worker.target)
    with tf.device("/job:ps/task:0"):
        total = v1.get_variable("total", initializer=1.0)
    add = total.assign_add(2.0)
    with v1.Session(servers.worker.target) as session:
        session.run(total.initializer)
        session.run(add)
    with v1.Session(servers.ps.target) as another:
        assert another.run(total) == 3.0
        devices = {device.name for device in another.list_devices()}
    assert "/job:worker/replica:0/task:0/device:CPU:0" in devices
    assert servers.ps.server_def.job_name == "ps"
    assert isinstance(servers.ps, v1.train.Server)


@pytest.fixture
def ipv6_servers():
    """A parameter server and a worker on ::1."""
    return start_servers(host="::1", ps=1, worker=1, server=train.Server)


@pytest.mark.original_api("tf.train.Server")
def test_a_cluster_on_ipv6_trains_with_a_session_and_with_a_loop(ipv6_servers, logdir):
    master = ipv6_servers["worker", 0].target
    assert master.startswith("grpc://[::1]:")
    with tf.device("/job:ps/task:0"):
        step = train.get_or_create_global_step()
        weight = v1.get_variable("weight", initializer=1.0)
    train_op = train.GradientDescentOptimizer(0.25).minimize(weight**2, global_step=step)
    with train.MonitoredTrainingSession(master, hooks=[train.StopAtStepHook(2)]) as session:
        while not session.should_stop():
            session.run(train_op)
    with v1.Session(master) as session:
        assert session.run([step, weight]) == [2, 0.25]
    training.train(train_op, logdir, master=master, hooks=[train.StopAtStepHook(3)])
    assert train.latest_checkpoint(logdir).endswith("model.ckpt-3")


@pytest.mark.original_api("tf.train.Server")
def test_the_local_servers_job_is_local():
    server = train.Server.create_local_server()
    with tf.device("/job:local/task:0"):
        number = tf.identity(4.0)
    with v1.Session(server.target) as session:
        assert session.run(number) == 4.0
    assert server.server_def.cluster.job[0].name == "local"


@pytest.mark.original_api("tf.train.Server")
def test_the_local_servers_job_may_have_tensorflows_name_for_it():
    server = train.Server.create_local_server(
        config=v1.ConfigProto(device_count={"CPU": 2}), job_name="localhost"
    )
    with tf.device("/job:localhost/task:0/cpu:1"):
        number = tf.identity(4.0)
    with v1.Session(server.target) as session:
        assert session.run(number) == 4.0


def variables(shapes):
    return [v1.get_variable(f"v{i}", shape) for i, shape in enumerate(shapes)]


@pytest.mark.original_api("tf.train.replica_device_setter")
def test_variables_go_to_the_servers_in_turn_and_ops_to_the_worker():
    cluster = train.ClusterSpec({"ps": ["a:1", "b:1"], "worker": ["c:1"]})
    setter = train.replica_device_setter(worker_device="/job:worker/task:0", cluster=cluster)
    with v1.device(setter):
        placed = variables([[2], [3], [4]])
        total = tf.add_n([tf.reduce_sum(variable) for variable in placed])
        update = train.AdamOptimizer().minimize(total)
    assert [variable.device for variable in placed] == [
        "/job:ps/task:0",
        "/job:ps/task:1",
        "/job:ps/task:0",
    ]
    assert total.device == "/job:worker/task:0"
    slots = {v.op.name: v.device for v in v1.global_variables() if "Adam" in v.op.name}
    assert slots["v1/Adam"] == slots["v1/Adam_1"] == "/job:ps/task:1"
    assert update is not None


@pytest.mark.original_api("tf.train.replica_device_setter")
@pytest.mark.parametrize("use_resource", [True, False])
def test_a_strategy_places_by_bytes(use_resource):
    setter = train.replica_device_setter(ps_tasks=2, ps_strategy=BalancedByBytes(2))
    with v1.device(setter), v1.variable_scope("", use_resource=use_resource):
        placed = variables([[100], [10], [20], [30], [10]])
    assert [variable.device for variable in placed] == [
        f"/job:ps/task:{task}" for task in (0, 1, 1, 1, 1)
    ]


@pytest.mark.original_api("tf.train.replica_device_setter")
def test_without_parameter_servers_nothing_is_placed():
    assert train.replica_device_setter(ps_tasks=0) is None


@pytest.mark.original_api("tf.train.replica_device_setter")
def test_a_device_inside_overrides_the_task():
    with v1.device(train.replica_device_setter(ps_tasks=3)), v1.device("/task:2"):
        [variable] = variables([[1]])
    assert variable.device == "/job:ps/task:2"
