"""Flat storage: the same weights, checkpoints and reads as with single variables."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from paramserve.data_plane.flat.storage import LARGEST_BYTES, flatten
from paramserve.data_plane.options import DataPlane
from paramserve.data_plane.placement import on_cluster
from paramserve.data_plane.prepare import prepare
from support.static_servers import start_servers

v1 = tf.compat.v1
WORKER = "/job:worker/task:0"
# Nothing at all is changed in this graph.
STOCK = DataPlane(transfer_bucket_bytes=0)
FLAT = DataPlane(storage="flat")
LOGGER = "paramserve.data_plane.flat.storage"


@pytest.fixture(scope="module")
def servers():
    """Two parameter servers, a chief and a worker, all in this process."""
    return start_servers(ps=2, worker=1, chief=1)


@pytest.fixture
def target(servers):
    worker = servers["worker", 0].target
    yield worker
    v1.Session.reset(worker)


class Model:
    """A graph on the cluster, prepared for one storage when its first session is opened."""

    def __init__(self, build, target, options=FLAT, num_ps=1, device=WORKER):
        self.target, self.options = target, options
        keras.utils.clear_session(free_memory=False)  # Else the second model has other names.
        self.graph = tf.Graph()
        with self.graph.as_default(), on_cluster(num_ps, device):
            self.train_op = build()
            self.init = v1.global_variables_initializer()
            self.uninitialized = v1.report_uninitialized_variables()
            self.uninitialized.mark_used()
            self.saver = v1.train.Saver(v1.global_variables())
            self.reads = {v.op.name: v.read_value() for v in v1.global_variables()}
        self.is_prepared = False

    def session(self):
        if not self.is_prepared:
            prepare(self.graph, self.options, [self.train_op])
            self.is_prepared = True
        return v1.Session(self.target, self.graph)

    def variable(self, name):
        (found,) = (v for v in self.graph.get_collection("variables") if v.op.name == name)
        return found

    @property
    def stored(self):
        """Names of the variables that are parts of others."""
        flags = [
            op.get_attr("shared_name").decode()
            for op in self.graph.get_operations()
            if op.type == "VarHandleOp" and op.name.startswith("flat_storage")
        ]
        return {name.split("/", 3)[3] for name in flags if name.count("/") > 2}

    def train(self, steps=4):
        with self.session() as session:
            session.run(self.init)
            for _ in range(steps):
                session.run(self.train_op)
            return session.run(self.reads)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def compare(build, target, num_ps=1, steps=4):
    """Trains with and without flat storage; returns the model with it."""
    expected = Model(build, target, STOCK, num_ps).train(steps)
    v1.Session.reset(target)
    model = Model(build, target, FLAT, num_ps)
    assert_same(model.train(steps), expected)
    return model


def variable(name, shape, dtype=tf.float32, **options):
    seed = sum(map(ord, name))
    random = np.random.RandomState(seed).uniform(-1, 1, shape)
    initial = v1.constant_initializer(random.astype(dtype.as_numpy_dtype))
    return v1.get_variable(name, shape, dtype, initial, use_resource=True, **options)


def dense(inputs, name, units):
    width = inputs.shape[1]
    kernel = variable(f"{name}/kernel", [width, units], inputs.dtype)
    return tf.tanh(tf.matmul(inputs, kernel) + variable(f"{name}/bias", [units], inputs.dtype))


def examples(dtype=tf.float32):
    return tf.cast(tf.random.stateless_normal([8, 16], [1, 2]), dtype)


def mlp(dtype=tf.float32):
    hidden = examples(dtype)
    for index, units in enumerate((32, 5, 16, 7)):
        hidden = dense(hidden, f"layer{index}", units)
    return tf.reduce_mean(hidden**2)


def minimize(make_optimizer):
    def build():
        step = v1.train.get_or_create_global_step()
        return make_optimizer().minimize(mlp(), step)

    return build


sgd = minimize(lambda: v1.train.GradientDescentOptimizer(0.1))
adam = minimize(lambda: v1.train.AdamOptimizer(0.01))
momentum = minimize(lambda: v1.train.MomentumOptimizer(0.1, 0.9))

OPTIMIZERS = {
    "sgd": lambda: v1.train.GradientDescentOptimizer(0.1),
    "momentum": lambda: v1.train.MomentumOptimizer(0.1, 0.9),
    "nesterov": lambda: v1.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
    "adam": lambda: v1.train.AdamOptimizer(0.01),
    "adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "ftrl": lambda: v1.train.FtrlOptimizer(0.1, learning_rate_power=-0.4),
    "rmsprop": lambda: v1.train.RMSPropOptimizer(0.01, momentum=0.5),
    "centered": lambda: v1.train.RMSPropOptimizer(0.01, centered=True),
    "adadelta": lambda: v1.train.AdadeltaOptimizer(0.5),
}


# The same weights


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_give_the_same_weights_and_slots(target, name):
    model = compare(minimize(OPTIMIZERS[name]), target)
    assert {"layer0/kernel", "layer0/bias", "layer2/bias"} <= model.stored
    # A variable that does not fill a vector is stored where alignment makes no difference.
    assert ("layer3/bias" in model.stored) == (name in {"sgd", "momentum", "nesterov", "adam"})


@pytest.mark.parametrize("name", ["adam", "momentum"])
def test_the_same_weights_over_two_servers(target, name):
    def build():
        hidden = examples()
        for index in range(6):
            hidden = dense(hidden, f"layer{index}", 16)
        return OPTIMIZERS[name]().minimize(tf.reduce_mean(hidden**2))

    model = compare(build, target, num_ps=2)
    devices = {model.variable(name).device for name in model.stored}
    assert devices == {"/job:ps/task:0", "/job:ps/task:1"}


def test_types_are_stored_apart(target):
    def build():
        hidden = dense(dense(examples(), "a", 16), "b", 16)
        wide = dense(dense(tf.cast(hidden, tf.float64), "c", 16), "d", 16)
        return v1.train.AdamOptimizer(0.01).minimize(tf.reduce_mean(wide))

    model = compare(build, target)
    assert {"a/kernel", "b/bias", "c/kernel", "d/bias"} <= model.stored


def test_gradients_clipped_by_their_global_norm(target):
    def build():
        optimizer = v1.train.AdamOptimizer(0.01)
        gradients, variables = zip(*optimizer.compute_gradients(mlp()), strict=True)
        clipped, _ = tf.clip_by_global_norm(gradients, 1e-3)
        return optimizer.apply_gradients(zip(clipped, variables, strict=True))

    assert "layer0/kernel" in compare(build, target).stored


def test_moving_averages_follow_the_updated_weights(target):
    def build():
        average = v1.train.ExponentialMovingAverage(0.5)
        with tf.control_dependencies([sgd()]):
            return average.apply(v1.trainable_variables())

    assert "layer0/kernel" in compare(build, target).stored


def test_two_optimizers_one_after_the_other(target):
    """The second one's gradients come after the first one's updates, so they are not joined."""

    def build():
        loss = mlp()
        variables = v1.trainable_variables()
        first = v1.train.GradientDescentOptimizer(0.1).minimize(loss, var_list=variables[:4])
        with tf.control_dependencies([first]):
            seen = [tf.reduce_sum(each.read_value()) for each in variables[:4]]
            gradients = tf.gradients(loss, variables[4:])
            pairs = [
                (g * tf.tanh(tf.add_n(seen)), v)
                for g, v in zip(gradients, variables[4:], strict=True)
            ]
            return v1.train.GradientDescentOptimizer(0.1).apply_gradients(pairs)

    model = compare(build, target)
    assert model.stored == {f"layer{i}/{kind}" for i in range(4) for kind in ("kernel", "bias")}
    types = [op.type for op in model.graph.get_operations() if op.name.startswith("flat_storage")]
    assert types.count("ResourceApplyGradientDescent") == 2


def test_a_penalty_on_the_weights_themselves(target):
    def build():
        loss = mlp() + sum(tf.nn.l2_loss(v) for v in v1.trainable_variables())
        return v1.train.GradientDescentOptimizer(0.1).minimize(loss)

    compare(build, target)


def test_a_keras_model(target):
    def build():
        model = keras.Sequential([keras.layers.Dense(16, "tanh", name=n) for n in ("a", "b")])
        loss = tf.reduce_mean(model(examples()) ** 2)
        for each in model.variables:
            value = np.random.RandomState(len(each.shape)).normal(size=each.shape)
            each.value._initializer_op = each.value.assign(value).op
        values = [each.value for each in model.trainable_variables]
        return v1.train.AdamOptimizer(0.01).minimize(loss, var_list=values)

    model = compare(build, target)
    assert len(model.stored) == 12


@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    layers=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    name=st.sampled_from(sorted(OPTIMIZERS)),
    num_ps=st.integers(1, 2),
    dtypes=st.lists(st.sampled_from([tf.float32, tf.float64]), min_size=5, max_size=5),
    averaged=st.booleans(),
)
def test_any_model_gets_the_same_weights(target, layers, name, num_ps, dtypes, averaged):
    def build():
        hidden = examples()
        for index, (units, dtype) in enumerate(zip(layers, dtypes, strict=False)):
            hidden = dense(tf.cast(hidden, dtype), f"layer{index}", units)
        train = OPTIMIZERS[name]().minimize(tf.reduce_mean(hidden**2))
        if not averaged:
            return train
        with tf.control_dependencies([train]):
            return v1.train.ExponentialMovingAverage(0.5).apply(v1.trainable_variables())

    v1.Session.reset(target)
    compare(build, target, num_ps, steps=3)


# Few transfers, few updates


def test_one_transfer_each_way(target):
    model = Model(sgd, target)
    with model.session() as session:
        session.run(model.init)
        metadata = v1.RunMetadata()
        options = v1.RunOptions(output_partition_graphs=True)
        session.run(model.train_op, options=options, run_metadata=metadata)
    nodes = [node.op for graph in metadata.partition_graphs for node in graph.node]
    assert nodes.count("ResourceApplyGradientDescent") == 1
    assert nodes.count("_Recv") <= 3  # The third is the end of the step.


def test_buckets_are_no_larger_than_asked_for(target):
    options = DataPlane(storage="flat", transfer_bucket_bytes=4096)
    model = Model(adam, target, options)
    assert_same(model.train(), Model(adam, target, STOCK).train())
    handles = [op for op in model.graph.get_operations() if op.type == "VarHandleOp"]
    shapes = [op.get_attr("shape") for op in handles if op.name.startswith("flat_storage")]
    sizes = [tf.TensorShape(shape).num_elements() * 4 for shape in shapes if len(shape.dim) == 2]
    assert len(sizes) > 3
    assert max(sizes) <= 4096


def test_a_large_variable_stays_whole(target):
    def build():
        large = variable("large", [LARGEST_BYTES // 4 + 1])
        loss = mlp() + tf.reduce_sum(large)
        return v1.train.GradientDescentOptimizer(0.1).minimize(loss)

    model = compare(build, target)
    assert "layer0/kernel" in model.stored
    assert "large" not in model.stored


def test_gradients_that_lie_side_by_side_already_are_taken_as_they_are(target):
    def build():
        variables = [variable(f"v{i}", [16]) for i in range(3)]
        together = tf.concat([tf.sin(each) for each in variables], 0)
        pairs = zip(tf.split(together, 3), variables, strict=True)
        return v1.train.GradientDescentOptimizer(0.1).apply_gradients(pairs)

    model = compare(build, target)
    (apply,) = (
        op
        for op in model.graph.get_operations()
        if op.type == "ResourceApplyGradientDescent" and op.name.startswith("flat_storage")
    )
    assert apply.inputs[2].op.inputs[0].op.name == "concat"


def test_doing_it_twice_changes_nothing_more(target):
    model = Model(adam, target)
    model.session().close()
    before = len(model.graph.get_operations())
    prepare(model.graph, FLAT, [model.train_op])
    assert len(model.graph.get_operations()) == before


# Tasks that share the variables


def test_a_worker_finds_what_a_chief_with_a_graph_of_its_own_has_made(servers, target):
    def build_with_summaries():
        train = adam()
        for each in v1.trainable_variables():
            v1.summary.histogram(each.op.name, each)
        return train

    chief = Model(adam, servers["chief", 0].target, num_ps=2, device="/job:chief/task:0")
    worker = Model(build_with_summaries, target, num_ps=2)
    with chief.session() as session:
        session.run(chief.init)
    with worker.session() as session:
        assert session.run(worker.uninitialized).size == 0
        session.run(worker.train_op)
        trained = session.run(worker.reads)
    with chief.session() as session:
        assert_same(session.run(chief.reads), trained)


def test_another_model_on_the_same_servers_is_not_initialized(target):
    first = Model(sgd, target)
    first.train()
    with Model(adam, target).session() as session, pytest.raises(tf.errors.FailedPreconditionError):
        session.run(session.graph.get_tensor_by_name("layer0/bias/Read/ReadVariableOp:0"))


# Initialization, reads and writes of the logical variables


def test_variables_are_initialized_one_by_one(target):
    model = Model(adam, target)
    bias, kernel = model.variable("layer0/bias"), model.variable("layer0/kernel")
    with model.session() as session:
        everything = {name.decode() for name in session.run(model.uninitialized)}
        assert {"layer0/bias", "layer0/bias/Adam", "layer3/kernel"} <= everything
        session.run(bias.initializer)
        missing = {name.decode() for name in session.run(model.uninitialized)}
        assert everything - missing == {"layer0/bias"}
        value = session.run(bias)
        with pytest.raises(tf.errors.FailedPreconditionError, match="layer0/kernel"):
            session.run(kernel)
        session.run(kernel.initializer)
        np.testing.assert_array_equal(session.run(bias), value)
        assert session.run(kernel).shape == (16, 32)


def test_a_variable_can_be_loaded_and_assigned(target):
    class Assigned:
        pass

    def build():
        train = sgd()
        one = next(v for v in v1.trainable_variables() if v.op.name == "layer1/bias")
        Assigned.new = one.assign(tf.fill([5], 7.0))
        Assigned.double = one.assign(one.read_value() * 2)
        return train

    model = Model(build, target)
    with model.session() as session:
        session.run(model.init)
        others = session.run(model.reads)
        np.testing.assert_array_equal(session.run(Assigned.new), [7.0] * 5)
        np.testing.assert_array_equal(session.run(Assigned.double), [14.0] * 5)
        model.variable("layer1/bias").load(np.arange(5.0), session)
        np.testing.assert_array_equal(session.run(model.reads["layer1/bias"]), np.arange(5.0))
        now = session.run(model.reads)
    now["layer1/bias"] = others["layer1/bias"]
    assert_same(now, others)


def test_a_value_read_for_the_step_is_that_of_before_the_step(target):
    class Read:
        pass

    def build():
        kept = variable("kept", [16])
        Read.value = kept.value()
        loss = mlp() + tf.reduce_sum(Read.value**2)
        return v1.train.GradientDescentOptimizer(0.1).minimize(loss)

    model = Model(build, target)
    with model.session() as session:
        session.run(model.init)
        for _ in range(20):
            before = session.run(model.reads["kept"])
            during, _ = session.run([Read.value, model.train_op])
            np.testing.assert_array_equal(during, before)
            assert (session.run(model.reads["kept"]) != before).any()


def test_a_scaffold_takes_it_as_it_is(target, tmp_path):
    model = Model(adam, target)
    with model.graph.as_default():
        scaffold = v1.train.Scaffold()
        scaffold.finalize()
    with model.session() as session:
        assert session.run(scaffold.ready_op).size > 0
        session.run(scaffold.init_op)
        assert session.run(scaffold.ready_op).size == 0
        session.run(model.train_op)
        expected = session.run(model.reads)
        path = scaffold.saver.save(session, str(tmp_path / "model"))
        session.run(model.train_op)
        scaffold.saver.restore(session, path)
        assert_same(session.run(model.reads), expected)
    assert model.graph.finalized


# Checkpoints


@pytest.mark.parametrize(("first", "second"), [(FLAT, STOCK), (STOCK, FLAT)], ids=["to", "from"])
def test_checkpoints_know_nothing_of_the_storage(target, tmp_path, first, second):
    saving = Model(adam, target, first, num_ps=2)
    expected = Model(adam, target, STOCK).train(steps=6)
    with saving.session() as session:
        session.run(saving.init)
        for _ in range(3):
            session.run(saving.train_op)
        path = saving.saver.save(session, str(tmp_path / "model"))
    shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    variables = saving.graph.get_collection("variables")
    assert shapes == {v.op.name: v.shape.as_list() for v in variables}
    assert "layer0/kernel/Adam_1" in shapes

    v1.Session.reset(target)
    resuming = Model(adam, target, second, num_ps=1)
    with resuming.session() as session:
        resuming.saver.restore(session, path)
        assert session.run(resuming.uninitialized).size == 0
        for _ in range(3):
            session.run(resuming.train_op)
        assert_same(session.run(resuming.reads), expected)


# Left alone


def leave_alone(build, target, caplog, reason, names):
    with caplog.at_level(logging.INFO, LOGGER):
        model = compare(build, target)
    assert not model.stored & names
    assert "layer0/kernel" in model.stored
    assert f"{len(names)} variables are stored by themselves: {reason}" in caplog.messages


def test_a_table_of_which_rows_are_read(target, caplog):
    def build():
        table = variable("table", [10, 16])
        rows = tf.nn.embedding_lookup(table, [1, 3, 3])
        loss = mlp() + tf.reduce_sum(tf.sin(rows))
        return v1.train.GradientDescentOptimizer(0.1).minimize(loss)

    model = compare(build, target)
    assert "layer0/kernel" in model.stored
    assert "table" not in model.stored


def test_a_variable_that_the_step_writes_itself(target, caplog):
    def build():
        with tf.control_dependencies([sgd()]):
            one, two = v1.trainable_variables()[2:4]
            return tf.group(one.assign(tf.clip_by_value(one, -0.1, 0.1)), two.assign_sub(two * 0.1))

    with caplog.at_level(logging.INFO, LOGGER):
        model = compare(build, target)
    assert not model.stored & {"layer1/kernel", "layer1/bias"}
    assert "1 variables are stored by themselves: AssignVariableOp uses it in the step" in (
        caplog.messages
    )


def test_a_variable_that_is_read_in_a_condition(target, caplog):
    def build():
        kept = variable("kept", [16])
        chosen = tf.cond(tf.reduce_sum(examples()) > 0, lambda: tf.sin(kept), lambda: kept + 1)
        loss = mlp() + tf.reduce_sum(chosen)
        return v1.train.GradientDescentOptimizer(0.1).minimize(loss)

    leave_alone(build, target, caplog, "If uses it in the step", {"kept"})


def test_a_variable_that_is_read_in_a_loop(target):
    def build():
        kept = variable("kept", [8, 8])
        start = variable("start", [8, 8])

        def once(index, value):
            return index + 1, tf.matmul(value, kept)

        _, value = tf.while_loop(lambda index, _: index < 3, once, [0, start.read_value()])
        return v1.train.GradientDescentOptimizer(0.1).minimize(mlp() + tf.reduce_sum(value))

    assert "start" in compare(build, target).stored


def test_a_variable_that_two_optimizers_update(target):
    def build():
        loss = mlp()
        shared = v1.trainable_variables()[:1]
        first = v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        with tf.control_dependencies([first]):
            gradient = tf.sin(shared[0].read_value())
            second = v1.train.GradientDescentOptimizer(0.1)
            return second.apply_gradients([(gradient, shared[0])])

    model = compare(build, target)
    assert "layer0/kernel" not in model.stored
    assert "layer1/kernel" in model.stored


def test_ref_variables(target, caplog):
    def build():
        old = v1.get_variable("old", [4], use_resource=False, initializer=v1.zeros_initializer())
        loss = mlp() + tf.reduce_sum(tf.sin(old))
        return v1.train.GradientDescentOptimizer(0.1).minimize(loss)

    leave_alone(build, target, caplog, "it is a ref variable", {"old"})


def test_partitions_are_variables_of_their_own(target):
    def build():
        whole = variable_of_parts = v1.get_variable(
            "whole",
            [8, 16],
            initializer=v1.ones_initializer(),
            partitioner=v1.fixed_size_partitioner(2),
            use_resource=True,
        )
        loss = tf.reduce_sum(tf.sin(tf.convert_to_tensor(variable_of_parts))) + mlp()
        assert len(list(whole)) == 2
        return v1.train.AdamOptimizer(0.1).minimize(loss)

    assert {"whole/part_0", "whole/part_1"} <= compare(build, target).stored


def test_without_a_cluster_nothing_is_stored_together():
    with tf.Graph().as_default() as graph:
        train = sgd()
        before = len(graph.get_operations())
        assert flatten(graph, [train], 4096) == 0
        assert len(graph.get_operations()) == before
