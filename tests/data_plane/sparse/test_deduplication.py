"""Tables: equal ids cross once, and the weights are those of the plain graph to the last bit."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from paramserve.data_plane.options import DataPlane
from paramserve.data_plane.prepare import prepare
from paramserve.data_plane.sparse import deduplication as sparse

v1 = tf.compat.v1

ROWS = 40
SUMMING = {
    "Momentum": lambda: v1.train.MomentumOptimizer(0.1, 0.9),
    "Adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "Adam": lambda: v1.train.AdamOptimizer(0.01),
    "FTRL": lambda: v1.train.FtrlOptimizer(0.1, l1_regularization_strength=0.01),
}
SGD = {"SGD": lambda: v1.train.GradientDescentOptimizer(0.1)}


def table(name, width=4, rows=ROWS, seed=1, **options):
    """A table of other values than those of its neighbours."""
    initializer = v1.random_normal_initializer(stddev=0.3, seed=seed)
    return v1.get_variable(name, [rows, width], tf.float32, initializer, **options)


def ids(shape, seed=0, below=ROWS, dtype=tf.int64):
    """Other ids in each step, among which many are equal."""
    count = tf.cast(v1.train.get_or_create_global_step().read_value(), tf.int32)
    spread = tf.random.stateless_uniform(shape, tf.stack([count, seed]))
    return tf.cast(spread**3 * below, dtype)


def loss_of(rows):
    """A loss in which each row has another gradient."""
    flat = tf.reshape(rows, [-1, rows.shape[-1]])
    places = tf.cast(tf.range(1, tf.shape(flat)[0] + 1), tf.float32)
    return tf.reduce_sum(tf.sin(flat) * places[:, None]) / 30


def step(loss, optimizer="Adagrad", **options):
    made = {**SUMMING, **SGD}[optimizer]()
    return made.minimize(loss, v1.train.get_or_create_global_step(), **options)


def several(count=5, shape=(16,), width=4, dtype=tf.int64, **options):
    """Tables that are looked up once each."""
    losses = []
    for index in range(count):
        rows = v1.nn.embedding_lookup(
            table(f"t{index}", width, seed=index), ids(shape, index, dtype=dtype), **options
        )
        losses.append(loss_of(rows))
    return tf.add_n(losses)


@pytest.fixture(autouse=True)
def small_gradients_count(monkeypatch):
    monkeypatch.setattr(sparse, "FEWEST_BYTES", 0)


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.INFO, "paramserve.data_plane.sparse.deduplication")
    return lambda: [each.getMessage() for each in caplog.records if "equal ids" in each.message]


# Exactness


@pytest.mark.parametrize("num_ps", [1, 2])
@pytest.mark.parametrize("optimizer", SUMMING)
def test_rows_cross_once_and_the_weights_are_the_same(compare, logged, optimizer, num_ps):
    plain, packed = compare(lambda: step(several(), optimizer), num_ps=num_ps, steps=20)
    assert packed.equals(plain)
    assert logged() == ["equal ids cross once: in 5 gradients and 5 lookups"]
    # Once for all tables of a server; without the pass, each table did it by itself.
    assert (plain.received["Unique"], packed.received["Unique"]) == (5, num_ps)
    assert packed.received["_Recv"] < plain.received["_Recv"]


@pytest.mark.parametrize("num_ps", [1, 2])
def test_gradient_descent_keeps_all_of_its_rows(compare, logged, num_ps):
    plain, packed = compare(lambda: step(several(), "SGD"), num_ps=num_ps, steps=12)
    assert packed.equals(plain)
    assert logged() == [
        "equal ids cross as they are in 5 places: rows are narrow, and no gradient needs equal ids"
    ]


def test_wide_rows_are_looked_up_once_under_gradient_descent(compare, logged):
    plain, packed = compare(lambda: step(several(width=128), "SGD"), steps=12)
    assert packed.equals(plain)
    assert logged() == ["equal ids cross once: in 0 gradients and 5 lookups"]


@pytest.mark.parametrize("optimizer", ["SGD", *SUMMING])
@pytest.mark.parametrize("strategy", ["div", "mod"])
def test_partitioned_tables(compare, strategy, optimizer):
    def build():
        parts = table("t", partitioner=v1.fixed_size_partitioner(3))
        rows = v1.nn.embedding_lookup(parts, ids([24]), partition_strategy=strategy)
        return step(loss_of(rows), optimizer)

    plain, packed = compare(build, steps=12)
    assert packed.equals(plain)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
@pytest.mark.parametrize("shape", [(16,), (8, 3), (2, 3, 4), (0,), ()])
def test_ids_of_any_shape(compare, logged, shape, dtype):
    plain, packed = compare(lambda: step(several(3, shape, dtype=dtype)), steps=5)
    assert packed.equals(plain)
    assert logged() == ["equal ids cross once: in 3 gradients and 3 lookups"]


def test_a_batch_whose_size_changes_and_may_be_zero(cluster):
    def build():
        # The last step, which counts ops, feeds nothing.
        batch = v1.placeholder_with_default(np.array([2, 2], np.int64), [None], name="ids")
        losses = [loss_of(tf.nn.embedding_lookup(table(f"t{i}"), batch)) for i in range(4)]
        return [step(tf.add_n(losses)), tf.add_n(losses)]

    def run(session, fetches):
        batches = ([1, 1, 1], [], [3], [5, 0, 5, 0, 39])
        return [session.run(fetches, {"ids:0": batch})[1] for batch in batches]

    plain, packed = (cluster.train(build, each, run=run) for each in (None, DataPlane()))
    assert packed.equals(plain)
    assert packed.fetched == plain.fetched


# Other uses of ids and tables


def test_the_same_ids_for_several_tables_are_compared_once(compare):
    def build():
        same = ids([16])
        losses = [loss_of(tf.nn.embedding_lookup(table(f"t{i}"), same)) for i in range(4)]
        return step(tf.add_n(losses))

    plain, packed = compare(build, num_ps=1, steps=12)
    assert packed.equals(plain)
    assert (plain.received["Unique"], packed.received["Unique"]) == (4, 1)


def test_a_table_looked_up_twice(compare, logged):
    def build():
        shared = table("t")
        rows = [tf.nn.embedding_lookup(shared, ids([8], seed)) for seed in (0, 1)]
        return step(loss_of(rows[0]) + 2 * loss_of(rows[1]))

    plain, packed = compare(build, steps=12)
    assert packed.equals(plain)
    assert "equal ids cross once: in 1 gradients and 0 lookups" in logged()


def test_ids_that_come_from_another_lookup(compare):
    def build():
        first = tf.nn.embedding_lookup(table("first"), ids([8]))
        hop = tf.cast(tf.abs(first[:, 0]) * 10, tf.int64) % ROWS
        return step(loss_of(first) + loss_of(tf.nn.embedding_lookup(table("second"), hop)))

    plain, packed = compare(build, steps=12)
    assert packed.equals(plain)


def test_gradients_that_wait_for_the_loss(compare, logged):
    def build():
        loss = several(3)
        with tf.control_dependencies([loss]):
            return step(loss)

    plain, packed = compare(build, steps=10)
    assert packed.equals(plain)
    assert logged()


@pytest.mark.parametrize("options", [{"max_norm": 0.5}, {}])
def test_rows_that_are_clipped_next_to_the_table(compare, options):
    plain, packed = compare(lambda: step(several(3, **options)), steps=10)
    assert packed.equals(plain)


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
def test_sparse_lookups_with_a_combiner(compare, combiner):
    def build():
        places = tf.constant([[0, 0], [0, 1], [1, 0], [3, 0], [3, 2]], tf.int64)
        bags = tf.SparseTensor(places, ids([5]), [4, 3])
        rows = v1.nn.embedding_lookup_sparse(table("t"), bags, None, combiner=combiner)
        return step(loss_of(rows))

    plain, packed = compare(build, steps=10)
    assert packed.equals(plain)


def test_gradients_clipped_by_their_global_norm(compare):
    def build():
        optimizer = v1.train.AdagradOptimizer(0.1)
        gradients, variables = zip(*optimizer.compute_gradients(several(3)), strict=True)
        clipped, _ = tf.clip_by_global_norm(gradients, 0.2)
        return optimizer.apply_gradients(
            zip(clipped, variables, strict=True), v1.train.get_or_create_global_step()
        )

    plain, packed = compare(build, steps=10)
    assert packed.equals(plain)


def test_rows_that_are_fetched_are_those_of_the_plain_graph(compare):
    def build():
        rows = tf.nn.embedding_lookup(table("t"), ids([4, 3]))
        return [step(loss_of(rows)), rows]

    plain, packed = compare(build, steps=5)
    assert packed.equals(plain)
    for one, other in zip(plain.fetched, packed.fetched, strict=True):
        assert np.array_equal(one[1], other[1])


@pytest.mark.parametrize("optimizer", ["SGD", "Momentum", "Adagrad"])
def test_variables_of_the_old_kind(compare, logged, optimizer):
    def build():
        with v1.variable_scope("", use_resource=False):
            return step(several(3), optimizer)

    plain, packed = compare(build, steps=10)
    assert packed.equals(plain)
    assert logged()


def test_tables_of_several_widths_and_types(compare, logged):
    def build():
        widths = [loss_of(tf.gather(table(f"w{i}", 2 + i // 2), ids([9], i))) for i in range(6)]
        types = [tf.int32, tf.int64, tf.int32, tf.int64]
        tables = [
            tf.gather(table(f"t{i}"), ids([9], i, dtype=dtype)) for i, dtype in enumerate(types)
        ]
        return step(tf.add_n(widths + [loss_of(each) for each in tables]))

    plain, packed = compare(build, num_ps=1, steps=10)
    assert packed.equals(plain)
    assert (plain.received["Unique"], packed.received["Unique"]) == (10, 4)
    assert logged() == ["equal ids cross once: in 10 gradients and 10 lookups"]


def test_one_row_crosses_for_equal_ids(cluster):
    def rows(session, fetches):
        found = session.graph.get_operations()
        once = [op for op in found if op.type == "ResourceGather" and op.name.startswith("sparse")]
        return [session.run(op.outputs[0]).shape for op in once]

    def build():
        equal = tf.nn.embedding_lookup(table("t"), ids([32]) * 0 + 7)
        return step(loss_of(equal))

    assert cluster.train(build, DataPlane(), run=rows).fetched == [(1, 4)]


@pytest.mark.parametrize("wrong", [-1, ROWS])
def test_an_id_that_is_in_no_table_is_an_error_as_before(cluster, wrong):
    def build():
        lost = tf.concat([ids([4], 1), [wrong]], 0)
        rows = [
            tf.gather(table(f"t{i}"), each) for i, each in enumerate([ids([5]), lost, ids([5])])
        ]
        return step(tf.add_n([loss_of(each) for each in rows]))

    for data_plane in (None, DataPlane()):
        with pytest.raises(tf.errors.InvalidArgumentError):
            cluster.train(build, data_plane, num_ps=1)


# Graphs that stay unchanged


@pytest.mark.parametrize("control_flow_v2", [True, False])
def test_tables_in_a_condition_stay_as_they_are(compare, logged, control_flow_v2):
    def build():
        shared, batch = table("t"), ids([8])
        toggle = v1.enable_control_flow_v2 if control_flow_v2 else v1.disable_control_flow_v2
        was = v1.control_flow_v2_enabled()
        toggle()
        try:
            rows = tf.cond(
                batch[0] >= 0,
                lambda: tf.nn.embedding_lookup(shared, batch),
                lambda: tf.zeros([8, 4]),
            )
        finally:
            (v1.enable_control_flow_v2 if was else v1.disable_control_flow_v2)()
        return step(loss_of(rows))

    plain, packed = compare(build, steps=5)
    assert packed.equals(plain)
    # Inside of a function nothing is seen of it.
    assert any("in a loop or a condition" in each for each in logged()) != control_flow_v2


def test_small_gradients_stay_with_the_others(compare, logged, monkeypatch):
    # 5 tables with 16 ids and 4 values of 4 bytes.
    monkeypatch.setattr(sparse, "FEWEST_BYTES", 5 * 16 * 4 * 4 + 1)
    plain, packed = compare(lambda: step(several()), num_ps=1, steps=5)
    assert packed.equals(plain)
    assert "equal ids cross as they are in 5 places: the gradient is small" in logged()
    assert packed.received["Unique"] == plain.received["Unique"] == 5


def test_a_lookup_that_something_waits_for_stays_as_it_is(compare, logged):
    def build():
        rows = tf.gather(table("t"), ids([8]))
        with tf.control_dependencies([rows.op]):
            late = v1.assign_add(table("other"), tf.ones([ROWS, 4]))
        with tf.control_dependencies([late]):
            return step(loss_of(rows))

    plain, packed = compare(build, steps=5)
    assert packed.equals(plain)
    assert "waited for" in " ".join(logged())


def test_twice_is_as_good_as_once(cluster):
    def build():
        train_op = step(several())
        prepare(v1.get_default_graph(), DataPlane(), [train_op])
        return train_op

    plain = cluster.train(lambda: step(several()), steps=10)
    twice = cluster.train(build, DataPlane(), steps=10)
    assert twice.equals(plain)
