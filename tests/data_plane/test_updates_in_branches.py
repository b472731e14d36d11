"""Updates inside conditionals, loops and functions: the weights are those of the plain graph."""

import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1

OPTIMIZERS = {
    "SGD": lambda: v1.train.GradientDescentOptimizer(0.1),
    "Momentum": lambda: v1.train.MomentumOptimizer(0.1, 0.9),
    "Adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "Adam": lambda: train.AdamOptimizer(0.01),
}
EVERY = 3


@pytest.fixture(params=[True, False], ids=["functional", "old"])
def control_flow(request):
    """Control flow of version 2 or 1, for what is built in the test."""
    was_v2 = v1.control_flow_v2_enabled()
    (v1.enable_control_flow_v2 if request.param else v1.disable_control_flow_v2)()
    yield
    (v1.enable_control_flow_v2 if was_v2 else v1.disable_control_flow_v2)()


def variable(name, shape, seed=1, **options):
    return v1.get_variable(
        name, shape, tf.float32, v1.random_normal_initializer(stddev=0.3, seed=seed), **options
    )


def model():
    """A loss in which each step has other examples, of several variables and a table."""
    count = tf.cast(v1.train.get_or_create_global_step().read_value(), tf.int32)
    seen = v1.get_variable("seen", [], tf.int32, v1.zeros_initializer(), trainable=False)
    with tf.control_dependencies([count]):
        seed = tf.stack([seen.assign_add(1), 7])
    inputs = tf.random.stateless_normal([4, 6], seed)
    for index in range(4):
        kernel = variable(f"kernel{index}", [6, 6], index)
        inputs = tf.tanh(inputs @ kernel + variable(f"bias{index}", [6], index))
    ids = tf.random.stateless_uniform([4], seed, 0, 9, tf.int32)
    rows = tf.nn.embedding_lookup(variable("table", [9, 6]), ids)
    return tf.reduce_sum(inputs * rows)


def accumulating(optimizer):
    """Sums gradients, and applies them every few steps, as many scripts do."""
    pairs = optimizer.compute_gradients(model())
    sums = [
        v1.get_variable(f"sum{i}", v.shape, initializer=v1.zeros_initializer(), trainable=False)
        for i, (_, v) in enumerate(pairs)
    ]
    count = v1.get_variable("count", [], tf.int32, v1.zeros_initializer(), trainable=False)
    added = [s.assign_add(tf.convert_to_tensor(g)) for s, (g, _) in zip(sums, pairs, strict=True)]
    with tf.control_dependencies(added):
        counted = count.assign_add(1)

    def apply():
        means = [(s / EVERY, v) for s, (_, v) in zip(sums, pairs, strict=True)]
        with tf.control_dependencies(
            [optimizer.apply_gradients(means, v1.train.get_global_step())]
        ):
            return tf.group(*(s.assign(tf.zeros_like(s)) for s in sums))

    return tf.group(tf.cond(tf.equal(counted % EVERY, 0), apply, tf.no_op))


def in_a_loop(optimizer):
    pairs = optimizer.compute_gradients(model())
    step = v1.train.get_global_step()

    def body(i):
        with tf.control_dependencies([optimizer.apply_gradients(pairs, step)]):
            return i + 1

    return tf.while_loop(lambda i: i < 2, body, [tf.constant(0)], parallel_iterations=1)


def in_a_branch_of_a_loop(optimizer):
    pairs = optimizer.compute_gradients(model())
    step = v1.train.get_global_step()

    def body(i):
        applied = tf.cond(
            tf.equal(i % 2, 0),
            lambda: tf.group(optimizer.apply_gradients(pairs, step)),
            lambda: tf.no_op(),
        )
        with tf.control_dependencies([applied]):
            return i + 1

    return tf.while_loop(lambda i: i < 3, body, [tf.constant(0)], parallel_iterations=1)


def all_of_it_in_a_branch(optimizer):
    loss, step = model(), v1.train.get_or_create_global_step()
    return tf.cond(
        tf.less(step, 3),
        lambda: tf.group(optimizer.minimize(loss, global_step=step)),
        lambda: tf.no_op(),
    )


def with_a_scaled_loss(optimizer):
    scaling = v1.mixed_precision.MixedPrecisionLossScaleOptimizer(optimizer, "dynamic")
    return scaling.minimize(model(), v1.train.get_or_create_global_step())


def in_a_function(optimizer):
    pairs = optimizer.compute_gradients(model())
    step = v1.train.get_global_step()

    @tf.function
    def update():
        optimizer.apply_gradients(pairs, step)
        return step.read_value()

    return update()


WAYS = [
    in_a_loop,
    in_a_branch_of_a_loop,
    all_of_it_in_a_branch,
    with_a_scaled_loss,
    in_a_function,
]


def check(compare, build, **options):
    plain, packed = compare(build, steps=7, **options)
    assert packed.equals(plain)
    assert packed.weights["global_step"] > 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradients_that_are_summed_over_steps(compare, control_flow, optimizer):
    check(compare, lambda: accumulating(OPTIMIZERS[optimizer]()))


@pytest.mark.parametrize("num_ps", [1, 2])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_weights_are_the_same(compare, control_flow, way, num_ps):
    storage = "flat" if num_ps == 1 else "plain"
    check(compare, lambda: way(OPTIMIZERS["Adam"]()), num_ps=num_ps, storage=storage)


def test_what_is_read_crosses_together_all_the_same(compare):
    plain, packed = compare(lambda: accumulating(OPTIMIZERS["Momentum"]()), steps=4)
    assert packed.received["_Recv"] < plain.received["_Recv"]
