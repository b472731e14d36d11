"""Random models, packed: the weights are those of the plain graph, to the last bit."""

import numpy as np
import tensorflow as tf
from hypothesis import HealthCheck, given, settings, strategies as st

from paramserve.data_plane.options import DataPlane

v1 = tf.compat.v1

OPTIMIZERS = [
    lambda: v1.train.GradientDescentOptimizer(0.1),
    lambda: v1.train.MomentumOptimizer(0.1, 0.9),
    lambda: v1.train.AdamOptimizer(0.01),
    lambda: v1.train.AdagradOptimizer(0.1),
]
SHAPES = st.lists(st.integers(1, 9), max_size=3)
VARIABLES = st.lists(
    st.tuples(
        SHAPES,
        st.sampled_from([tf.float32, tf.float64, tf.float16, tf.bfloat16]),
        st.sampled_from(["whole", "rows", "written", "conditional"]),
        st.booleans(),  # Whether it waits for the variable before it.
    ),
    min_size=1,
    max_size=10,
)


def make_term(index, shape, dtype, kind, before):
    """A scalar that depends on a variable in one of several ways."""
    values = np.random.default_rng(index).normal(0, 0.3, shape)
    variable = v1.get_variable(f"v{index}", initializer=tf.constant(values, dtype))
    with tf.control_dependencies([before] if before is not None else []):
        if kind == "rows" and shape:
            rows = tf.gather(variable, [0, shape[0] - 1, 0])
            return tf.reduce_sum(tf.cast(rows, tf.float32) ** 2)
        # Read once: the update may come before another read.
        value = tf.cast(variable.read_value(), tf.float32)
        if kind == "conditional":
            is_positive = tf.reduce_sum(value) > 0.0
            return tf.reduce_sum(tf.cond(is_positive, lambda: value * 0.5, lambda: value**2))
        term = tf.reduce_sum(value**2)
        if kind == "written":
            counter = v1.get_variable(f"n{index}", [], tf.int64, v1.zeros_initializer())
            with tf.control_dependencies([counter.assign_add(index + 1, read_value=False)]):
                # Beside it: TensorFlow sends a ref variable's value before a read's control inputs.
                with v1.device(counter.device):
                    count = counter.read_value()
                term += 0.001 * tf.cast(count, tf.float32)
        return term


def build(variables, optimizer):
    terms = []
    for index, (shape, dtype, kind, waits) in enumerate(variables):
        before = terms[-1] if waits and terms else None
        terms.append(make_term(index, shape, dtype, kind, before))
    global_step = v1.train.get_or_create_global_step()
    return [optimizer().minimize(tf.add_n(terms), global_step), *terms]


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    variables=VARIABLES,
    optimizer=st.sampled_from(OPTIMIZERS),
    num_ps=st.integers(1, 2),
    bucket_bytes=st.sampled_from([64, 1000, 4 << 20]),
    storage=st.sampled_from(["plain", "flat"]),
)
def test_weights_and_values_are_the_same(
    cluster, variables, optimizer, num_ps, bucket_bytes, storage
):
    data_plane = DataPlane(transfer_bucket_bytes=bucket_bytes, storage=storage)
    plain = cluster.train(lambda: build(variables, optimizer), num_ps=num_ps)
    packed = cluster.train(lambda: build(variables, optimizer), data_plane, num_ps=num_ps)
    assert packed.equals(plain)
    for one, other in zip(packed.fetched, plain.fetched, strict=True):
        np.testing.assert_array_equal(one[1:], other[1:])
