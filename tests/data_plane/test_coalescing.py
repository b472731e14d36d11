"""Transfers in buckets: the same weights as with single transfers, to the last bit."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from paramserve.data_plane.options import DataPlane
from paramserve.data_plane.placement import on_cluster
from paramserve.data_plane.prepare import prepare

v1 = tf.compat.v1

OPTIMIZERS = {
    "SGD": lambda: v1.train.GradientDescentOptimizer(0.1),
    "Momentum": lambda: v1.train.MomentumOptimizer(0.1, 0.9),
    "Nesterov": lambda: v1.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
    "Adam": lambda: v1.train.AdamOptimizer(0.01),
    "Adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "FTRL": lambda: v1.train.FtrlOptimizer(0.1, l1_regularization_strength=0.01),
    "RMSProp": lambda: v1.train.RMSPropOptimizer(0.01, momentum=0.5),
}


def variable(name, shape, dtype=tf.float32, seed=1, **options):
    initializer = v1.random_normal_initializer(stddev=0.3, seed=seed)
    return v1.get_variable(name, shape, dtype, initializer, **options)


def step(loss, optimizer=None, **options):
    optimizer = optimizer or v1.train.GradientDescentOptimizer(0.1)
    return optimizer.minimize(loss, v1.train.get_or_create_global_step(), **options)


def layers(count=6, width=8, dtype=tf.float32):
    hidden = tf.random.stateless_normal([4, width], [1, 2], dtype=dtype)
    for index in range(count):
        weights = variable(f"w{index}_{dtype.name}", [width, width], dtype, seed=index)
        bias = variable(f"b{index}_{dtype.name}", [width], dtype, seed=index)
        hidden = tf.tanh(tf.linalg.matmul(hidden, weights) + bias)
    return tf.reduce_mean(hidden**2)


@pytest.mark.parametrize("num_ps", [1, 2])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_weights_are_the_same_and_few_tensors_cross(compare, optimizer, num_ps):
    plain, packed = compare(lambda: step(layers(), OPTIMIZERS[optimizer]()), num_ps=num_ps, steps=8)
    assert packed.equals(plain)
    # Both ways for each server; with two, also the global step's turn and Adam's shared scalars.
    assert packed.received["_Recv"] <= 2 + 9 * (num_ps - 1)
    assert plain.received["_Recv"] > 20


def test_a_tensor_of_many_buckets_crosses_in_pieces(compare):
    plain, packed = compare(lambda: step(layers(2, width=64)), num_ps=1, transfer_bucket_bytes=2048)
    assert packed.equals(plain)
    # Each way: two matrices of 16 KiB in 8 pieces, and two vectors.
    assert packed.received["_Recv"] == 2 * (2 * 8 + 2)


def test_a_large_tensor_crosses_alone(compare):
    plain, packed = compare(
        lambda: step(layers(2, width=64)), num_ps=1, transfer_bucket_bytes=65536
    )
    assert packed.equals(plain)
    # Each way: two matrices of 16 KiB, and the vectors together.
    assert packed.received["_Recv"] == 2 * (2 + 1)


def test_a_full_bucket_is_followed_by_another(compare):
    plain, packed = compare(lambda: step(layers(8)), num_ps=1, transfer_bucket_bytes=4096)
    assert packed.equals(plain)
    # Each way: 8 matrices of 256 bytes, and 8 vectors of 32.
    assert packed.received["_Recv"] == 2
    plain, packed = compare(lambda: step(layers(20)), num_ps=1, transfer_bucket_bytes=4096)
    assert packed.equals(plain)
    assert packed.received["_Recv"] == 2 * 2


def test_zero_bytes_switch_it_off(compare):
    plain, packed = compare(lambda: step(layers()), transfer_bucket_bytes=0)
    assert packed.received == plain.received


def test_each_type_crosses_by_itself(compare):
    def build():
        loss = layers(3) + tf.cast(layers(3, dtype=tf.float64), tf.float32)
        return step(loss + tf.cast(layers(3, dtype=tf.float16), tf.float32))

    plain, packed = compare(build, num_ps=1)
    assert packed.equals(plain)
    assert packed.received["_Recv"] == 6


def test_partitioned_variables(compare):
    def build():
        partitioner = v1.fixed_size_partitioner(3)
        weights = variable("w", [9, 8], partitioner=partitioner)
        outputs = tf.linalg.matmul(tf.ones([2, 9]), tf.convert_to_tensor(weights))
        return step(tf.reduce_sum(outputs**2) * 0.01 + layers(2), OPTIMIZERS["Adam"]())

    plain, packed = compare(build)
    assert packed.equals(plain)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "Adagrad"])
def test_tables_whose_rows_are_looked_up(compare, optimizer):
    def build():
        ids = tf.constant([3, 1, 3, 7])
        rows = [tf.nn.embedding_lookup(variable(f"t{i}", [10, 4], seed=i), ids) for i in range(4)]
        hidden = tf.linalg.matmul(tf.concat(rows, 1), variable("w", [16, 8]))
        return step(tf.reduce_mean(hidden**2) + layers(2), OPTIMIZERS[optimizer]())

    plain, packed = compare(build)
    assert packed.equals(plain)
    assert packed.received["_Recv"] < 0.6 * plain.received["_Recv"]


def test_clipping_by_the_norm_of_all_gradients(compare):
    def build():
        optimizer = OPTIMIZERS["Momentum"]()
        gradients, variables = zip(*optimizer.compute_gradients(layers()), strict=True)
        clipped, _ = tf.clip_by_global_norm(gradients, 0.05)
        pairs = zip(clipped, variables, strict=True)
        return optimizer.apply_gradients(pairs, v1.train.get_or_create_global_step())

    plain, packed = compare(build)
    assert packed.equals(plain)
    assert packed.received["_Recv"] <= 8


def test_averages_are_of_the_weights_after_the_step(compare):
    def build():
        train = step(layers())
        averages = v1.train.ExponentialMovingAverage(0.9, v1.train.get_global_step())
        with tf.control_dependencies([train]):
            return averages.apply(v1.trainable_variables())

    plain, packed = compare(build)
    assert packed.equals(plain)
    assert any(name.endswith("ExponentialMovingAverage") for name in packed.weights)


def test_what_is_read_after_it_was_written_is_the_new_value(compare):
    def build():
        counter = v1.get_variable("counter", [], initializer=v1.ones_initializer())
        before = tf.identity(counter.read_value()) * 1.0
        with tf.control_dependencies([before]):
            doubled = counter.assign(before * 2.0, read_value=False)
        with tf.control_dependencies([doubled]):
            after = counter.read_value() * 1.0
        return [step(layers(2) + 0.0 * (before + after)), before, after]

    plain, packed = compare(build, num_ps=1)
    assert packed.equals(plain)
    assert [values[1:] for values in packed.fetched] == [[1.0, 2.0], [2.0, 4.0], [4.0, 8.0]]


def test_two_optimizers_one_after_the_other(compare):
    """The second one's gradients are taken at the weights that the first one made."""

    def build():
        first = step(layers(3), var_list=[v for v in v1.trainable_variables() if "w" in v.name])
        with tf.control_dependencies([first]):
            weights = [v.read_value() for v in v1.trainable_variables()]
            loss = tf.add_n([tf.reduce_sum(w**2) for w in weights])
            gradients = tf.gradients(loss, weights)
        pairs = zip(gradients, v1.trainable_variables(), strict=True)
        second = v1.train.GradientDescentOptimizer(0.05).apply_gradients(pairs)
        return tf.group(first, second)

    plain, packed = compare(build)
    assert packed.equals(plain)
    assert packed.received["_Recv"] < 0.6 * plain.received["_Recv"]


def test_steps_that_are_run_by_turns_need_only_their_own(cluster):
    """As in adversarial training: each step is fed other placeholders."""

    def build():
        fed = v1.placeholder(tf.float32, [4, 8])
        mine, other = ([variable(f"{name}{i}", [8, 8], seed=i) for i in range(3)] for name in "ab")

        def loss(inputs, weights):
            for each in weights:
                inputs = tf.tanh(tf.linalg.matmul(inputs, each))
            return tf.reduce_mean(inputs**2)

        return [
            step(loss(tf.ones([4, 8]), mine), var_list=mine),
            step(loss(fed, other), var_list=other),
            fed,
        ]

    def run(session, fetches):
        first, second, fed = fetches
        for _ in range(3):
            session.run(first)
            session.run(second, {fed: np.ones([4, 8])})
        fetches[1:] = []

    def prepared(data_plane):
        return cluster.train(build, data_plane, run=run)

    assert prepared(DataPlane()).equals(prepared(None))


@pytest.mark.parametrize("v2", [True, False], ids=["functional", "old"])
def test_loops_and_conditions(compare, v2, caplog):
    def build():
        switch = v1.control_flow_v2_enabled()
        (v1.enable_control_flow_v2 if v2 else v1.disable_control_flow_v2)()
        try:
            scale = variable("scale", [8])
            loss = layers(3)
            _, looped = tf.while_loop(
                lambda i, x: i < 3,
                lambda i, x: (i + 1, x * tf.reduce_mean(scale) + loss),
                [0, tf.constant(1.0)],
            )
            branch = tf.cond(loss > 0.0, lambda: tf.reduce_sum(scale**2), lambda: tf.constant(0.0))
            return step(looped**2 + branch + loss)
        finally:
            (v1.enable_control_flow_v2 if switch else v1.disable_control_flow_v2)()

    with caplog.at_level(logging.INFO):
        plain, packed = compare(build)
    assert packed.equals(plain)
    if not v2:
        assert "in a loop or a condition" in caplog.text


@pytest.mark.parametrize("v2", [True, False], ids=["functional", "old"])
@pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "ref"])
def test_variables_that_only_a_branch_reads(compare, v2, use_resource):
    """The branch that is not taken gives them gradients of 0, which no context marks as its own."""

    def build():
        switch = v1.control_flow_v2_enabled()
        (v1.enable_control_flow_v2 if v2 else v1.disable_control_flow_v2)()
        try:
            one, two = (variable(n, [16], use_resource=use_resource) for n in ("one", "two"))
            is_even = tf.equal(v1.train.get_or_create_global_step() % 2, 0)
            chosen = tf.cond(is_even, lambda: tf.sin(one), lambda: two * 2.0)
            return step(layers(3) + tf.reduce_sum(chosen))
        finally:
            (v1.enable_control_flow_v2 if switch else v1.disable_control_flow_v2)()

    plain, packed = compare(build, steps=5)
    assert packed.equals(plain)


def test_a_recurrent_layer_of_the_old_kind(compare):
    def build():
        switch = v1.control_flow_v2_enabled()
        v1.disable_control_flow_v2()
        try:
            kernel = tf.identity(variable("kernel", [8, 8]))
            _, state = tf.while_loop(
                lambda i, h: i < 4,
                lambda i, h: (i + 1, tf.tanh(tf.linalg.matmul(h, kernel))),
                [0, tf.ones([2, 8])],
            )
            return step(tf.reduce_mean(state**2) + layers(4), OPTIMIZERS["Adam"]())
        finally:
            if switch:
                v1.enable_control_flow_v2()

    plain, packed = compare(build, num_ps=1)
    assert packed.equals(plain)
    assert packed.received["_Recv"] < plain.received["_Recv"]


def test_a_keras_model(compare):
    def build():
        inputs = tf.random.stateless_normal([4, 6], [1, 2])
        seeded = keras.initializers.GlorotUniform(seed=1)
        hidden = keras.layers.Dense(8, "relu", kernel_initializer=seeded, name="hidden")
        outputs = keras.layers.Dense(1, kernel_initializer=seeded, name="outputs")
        loss = tf.reduce_mean(outputs(hidden(inputs)) ** 2)
        weights = [v.value for each in (hidden, outputs) for v in each.trainable_variables]
        return step(loss, OPTIMIZERS["Adam"](), var_list=weights)

    plain, packed = compare(build)
    assert packed.equals(plain)
    assert packed.received["_Recv"] < plain.received["_Recv"]


def test_batches_of_unknown_size_cross_with_their_sizes(cluster):
    """Tables on the parameter server, ids of a batch whose size only the step knows."""

    def build():
        ids = v1.placeholder(tf.int64, [None])
        rows = [tf.nn.embedding_lookup(variable(f"t{i}", [10, 4], seed=i), ids) for i in range(4)]
        return [step(tf.reduce_mean(tf.concat(rows, 1) ** 2)), ids]

    def run(session, fetches):
        train, ids = fetches
        for batch in ([1, 2, 2], [], [5], [0, 9, 5, 3]):
            session.run(train, {ids: batch})
        fetches[:] = [v1.train.get_global_step().read_value()]

    plain = cluster.train(build, num_ps=1, run=run)
    assert cluster.train(build, DataPlane(), num_ps=1, run=run).equals(plain)


def test_a_variable_can_be_initialized_while_others_are_not(cluster):
    def build():
        weights = [variable(f"w{i}", [4], seed=i) for i in range(3)]
        shared = sum(tf.reduce_sum(w) for w in weights[:2])
        late = v1.get_variable("late", initializer=shared)
        return step(shared + tf.reduce_sum(weights[2]) + late)

    with tf.Graph().as_default() as graph:
        with on_cluster(2, "/job:worker/task:0"):
            train = build()
        first, second, third, late = v1.trainable_variables()
        prepare(graph, DataPlane(), [train])
        with v1.Session(cluster.target) as session:
            session.run([first.initializer, second.initializer])
            session.run(late.initializer)  # Needs the first two; the third has no value yet.
            session.run([third.initializer, v1.train.get_global_step().initializer])
            session.run(train)


def test_preparing_twice_changes_nothing_more(cluster):
    with tf.Graph().as_default() as graph:
        with on_cluster(2, "/job:worker/task:0"):
            train = step(layers(), OPTIMIZERS["Adam"]())
        prepare(graph, DataPlane(), [train])
        graph.finalize()
        before = len(graph.get_operations())
        prepare(graph, DataPlane(), [train])
        assert len(graph.get_operations()) == before
        assert graph.finalized


def test_a_model_without_a_cluster_is_left_as_it_is():
    with tf.Graph().as_default() as graph:
        train = step(layers())
        before = graph.as_graph_def()
        prepare(graph, DataPlane(), [train])
        assert graph.as_graph_def() == before
