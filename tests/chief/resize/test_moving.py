"""The move of a model between layouts: on real servers, with every variable unchanged."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.chief.resize.moving import plan_move
from paramserve.chief.resize.relocation import CHIEF, build_layout, drop_layout
from paramserve.cluster.runtime import session_config, start_server
from paramserve.cluster.session import BoundedCloseSession
from paramserve.cluster.spec import ClusterView, Member
from paramserve.data_plane.options import DataPlane
from paramserve.errors import JobFailed
from paramserve.jobs.options import JobOptions
from paramserve.loops.loop import LoopContext
from paramserve.model.spec import TrainSpec
from paramserve.train import AdamOptimizer

MOST = 3
v1 = tf.compat.v1


class Servers:
    """Parameter servers and a chief in this process, and sessions over some of them."""

    def __init__(self):
        self.servers = [start_server("127.0.0.1") for _ in range(MOST)]
        self.chief = start_server("127.0.0.1")
        self.sessions = []

    def view(self, count):
        members = tuple(Member(each.address, each.address) for each in self.servers[:count])
        return ClusterView(1, members)

    def session(self, graph, count=MOST):
        config = session_config(self.view(count), CHIEF, self.chief.address)
        self.sessions.append(BoundedCloseSession(self.chief.target, graph, config))
        return self.sessions[-1]

    def reset(self):
        for session in self.sessions:
            session.close()
        for server in (*self.servers, self.chief):
            v1.Session.reset(server.target, [f"paramserve-{number}" for number in range(4)])
            v1.Session.reset(server.target)


@pytest.fixture(scope="module")
def all_servers():
    return Servers()


@pytest.fixture
def servers(all_servers):
    yield all_servers
    all_servers.reset()


def lay_out(model, num_ps, number, **data_plane):
    options = JobOptions(
        model="m.py:build", logdir="runs", sync=False, data_plane=DataPlane(**data_plane)
    )
    return build_layout(model, options, num_ps, number, LoopContext())


def saved(layout, session, folder):
    """Returns the contents of a layout's checkpoint, by name."""
    with layout.built.graph.as_default():
        path = layout.built.saver.save(session, str(folder / f"at-{layout.number}"))
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def train(layout, session, steps=3):
    for _ in range(steps):
        session.run(layout.built.train_op)


def of_many_kinds(task):
    """Variables of every kind; the pieces of one depend on the number of parameter servers."""
    x = tf.random.stateless_normal([8, 6], [1, 2])
    large = v1.get_variable(
        "large",
        [12, 6],
        initializer=v1.random_normal_initializer(seed=3),
        partitioner=v1.fixed_size_partitioner(task.num_ps),
    )
    rows = tf.nn.embedding_lookup(large, [0, 5, 11])
    by_reference = v1.get_variable("by_reference", [6, 2], use_resource=False)
    narrow = v1.get_variable("narrow", [6], dtype=tf.float64, initializer=v1.ones_initializer())
    v1.get_variable("count", [], tf.int64, v1.ones_initializer(), trainable=False)
    loss = tf.reduce_sum(rows**2) + tf.reduce_sum((x @ by_reference) ** 2)
    return TrainSpec(
        loss=loss + tf.cast(tf.reduce_sum(narrow**2), tf.float32), optimizer=AdamOptimizer(0.1)
    )


@pytest.mark.parametrize(
    ("path", "data_plane"),
    [
        ((2, 3, 1), {}),
        ((1, 3, 2), {"storage": "flat"}),
        ((3, 2), {"max_shard_bytes": 64}),
    ],
)
def test_a_model_is_the_same_on_any_number_of_servers(servers, tmp_path, path, data_plane):
    layout = lay_out(of_many_kinds, path[0], 0, **data_plane)
    session = servers.session(layout.built.graph, path[0])
    session.run(layout.built.init_op)
    train(layout, session)
    for number, num_ps in enumerate(path[1:], 1):
        before = saved(layout, session, tmp_path)
        assert before["global_step"] == 3 * number
        following = lay_out(of_many_kinds, num_ps, number, **data_plane)
        move = plan_move(layout.built, following.built)
        servers.session(move.graph).run(move.op)

        session = servers.session(following.built.graph, num_ps)
        assert session.run(following.built.uninitialized).size == 0
        after = saved(following, session, tmp_path)
        assert set(after) == set(before)
        for name in before:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
        layout = following
        train(layout, session)  # And it trains on.


def test_tensors_cross_from_server_to_server_and_not_by_the_chief(servers):
    move = plan_move(lay_out(of_many_kinds, 1, 0).built, lay_out(of_many_kinds, 3, 1).built)
    crossing = [
        (tensor.op.name, op.name)
        for op in move.graph.get_operations()
        for tensor in op.inputs
        if "/job:chief" in op.device and "/job:ps" in tensor.op.device
        # The code that restores Adam's powers of beta reshapes them.
        if tensor.shape.num_elements() != 1
    ]
    assert crossing == []


def test_a_layout_that_was_left_is_freed_and_updates_of_it_fail(servers):
    old, new = lay_out(of_many_kinds, 2, 0), lay_out(of_many_kinds, 1, 1)
    session = servers.session(old.built.graph, 2)
    session.run(old.built.init_op)
    move = plan_move(old.built, new.built)
    servers.session(move.graph).run(move.op)
    drop_layout(servers.view(2), old.number, max_wait_secs=10.0)

    with pytest.raises(tf.errors.OpError):
        session.run(old.built.train_op)
    fresh = servers.session(new.built.graph, 1)
    assert fresh.run(new.built.uninitialized).size == 0
    assert fresh.run(new.built.global_step) == 0


def test_a_model_that_grows_with_its_servers_is_not_moved():
    def build(task):
        for index in range(task.num_ps):
            v1.get_variable(f"of_server_{index}", [2])
        return TrainSpec(
            loss=tf.add_n([tf.reduce_sum(v) for v in v1.trainable_variables()]),
            optimizer=v1.train.GradientDescentOptimizer(0.1),
        )

    with pytest.raises(JobFailed, match="'of_server_1' on 2 parameter servers"):
        plan_move(lay_out(build, 1, 0).built, lay_out(build, 2, 1).built)
