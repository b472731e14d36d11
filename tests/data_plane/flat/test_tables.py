"""Tables stored in one: the same weights and errors, with one lookup and one update for all."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from paramserve.data_plane.flat import table_layout
from paramserve.data_plane.options import DataPlane
from paramserve.data_plane.placement import on_cluster
from paramserve.data_plane.prepare import prepare
from paramserve.data_plane.sparse import deduplication as sparse
from paramserve.train import AdamOptimizer, RowSparseAdamOptimizer

v1 = tf.compat.v1

FLAT = DataPlane(storage="flat")
ALONE = DataPlane(storage="flat", transfer_bucket_bytes=0)
ROWS = 40
OPTIMIZERS = {
    "SGD": lambda: v1.train.GradientDescentOptimizer(0.1),
    "Momentum": lambda: v1.train.MomentumOptimizer(0.1, 0.9),
    "Nesterov": lambda: v1.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
    "Adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "FTRL": lambda: v1.train.FtrlOptimizer(0.1, l1_regularization_strength=0.01),
    "RMSProp": lambda: v1.train.RMSPropOptimizer(0.01, momentum=0.5),
    "Adadelta": lambda: v1.train.AdadeltaOptimizer(0.5),
    "Adam": lambda: v1.train.AdamOptimizer(0.01),
    "our Adam": lambda: AdamOptimizer(0.01),
    "row-sparse Adam": lambda: RowSparseAdamOptimizer(0.01),
}


def table(name, width=4, rows=ROWS, dtype=tf.float32, **options):
    """A table of other values than those of its neighbours."""
    values = np.random.default_rng(sum(map(ord, name))).normal(0, 0.3, [rows, width])
    initial = v1.constant_initializer(values.astype(dtype.as_numpy_dtype))
    return v1.get_variable(name, [rows, width], dtype, initial, **options)


def ids(shape, seed=0, below=ROWS, dtype=tf.int64):
    """Other ids in each step, among which many are equal."""
    count = tf.cast(v1.train.get_or_create_global_step().read_value(), tf.int32)
    spread = tf.random.stateless_uniform(shape, tf.stack([count, seed]))
    return tf.cast(spread**3 * below, dtype)


def loss_of(rows):
    """A loss in which each row has another gradient."""
    flat = tf.cast(tf.reshape(rows, [-1, rows.shape[-1]]), tf.float32)
    places = tf.cast(tf.range(1, tf.shape(flat)[0] + 1), tf.float32)
    return tf.reduce_sum(tf.sin(flat) * places[:, None]) / 30


def minimize(loss, optimizer="Adagrad"):
    return OPTIMIZERS[optimizer]().minimize(loss, v1.train.get_or_create_global_step())


def several(count=5, shape=(16,), width=4):
    """Tables of several lengths that are looked up once each."""
    losses = []
    for index in range(count):
        rows = ROWS + 3 * index
        found = tf.nn.embedding_lookup(table(f"t{index}", width, rows), ids(shape, index, rows))
        losses.append(loss_of(found))
    return tf.add_n(losses)


@pytest.fixture(autouse=True)
def small_gradients_count(monkeypatch):
    monkeypatch.setattr(sparse, "FEWEST_BYTES", 0)


@pytest.mark.parametrize(
    ("num_ps", "data_plane"), [(1, ALONE), (2, FLAT)], ids=["alone", "with other passes"]
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_lookup_and_one_update(cluster, optimizer, num_ps, data_plane):
    def build():
        return minimize(several(), optimizer)

    plain = cluster.train(build, num_ps=num_ps, steps=8)
    fused = cluster.train(build, data_plane, num_ps=num_ps, steps=8)
    assert fused.equals(plain)
    for kind, count in plain.received.items():
        if kind.startswith(("ResourceSparseApply", "ResourceScatter", "ResourceGather")):
            assert (kind, fused.received[kind]) == (kind, count // 5 * num_ps)


@pytest.fixture
def same(cluster, caplog):
    """Trains plainly and with fused tables: the weights are the same. Returns the fused run."""

    def same(build, *, num_ps=1, steps=5, run=None):
        caplog.set_level(logging.INFO, "paramserve.data_plane.flat.tables")
        plain, fused = (
            cluster.train(build, each, num_ps=num_ps, steps=steps, run=run) for each in (None, FLAT)
        )
        assert fused.equals(plain)
        for one, other in zip(plain.fetched, fused.fetched, strict=True):
            if isinstance(one, list):
                for expected, found in zip(one[1:], other[1:], strict=True):
                    np.testing.assert_array_equal(found, expected)
        return fused

    same.log = lambda: [each.getMessage() for each in caplog.records if "tables" in each.message]
    return same


# Ids and rows


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
@pytest.mark.parametrize("shape", [(16,), (8, 3), (0,), ()])
def test_ids_of_any_shape(same, shape, dtype):
    def build():
        rows = [tf.gather(table(f"t{i}"), ids(shape, i, dtype=dtype)) for i in range(3)]
        return minimize(tf.add_n([loss_of(each) for each in rows]))

    assert same(build).received["ResourceGather"] == 1


@pytest.mark.parametrize("optimizer", ["SGD", "Adagrad"])
def test_a_batch_whose_size_changes_and_may_be_zero(same, optimizer):
    def build():
        # The last step, which counts ops, feeds nothing.
        batches = [
            v1.placeholder_with_default(np.array([2, 2, i], np.int64), [None], name=f"ids{i}")
            for i in range(3)
        ]
        losses = [
            loss_of(tf.nn.embedding_lookup(table(f"t{i}", rows=30 + i), batch))
            for i, batch in enumerate(batches)
        ]
        return [minimize(tf.add_n(losses), optimizer), tf.add_n(losses)]

    def run(session, fetches):
        steps = [([1, 1, 1], [], [5, 31]), ([], [], []), ([29], [30, 0, 30], [31, 31, 3])]
        return [
            session.run(fetches, {f"ids{i}:0": batch for i, batch in enumerate(step)})
            for step in steps
        ]

    assert same(build, run=run).received["ResourceGather"] == 1


def test_ids_that_are_columns_of_one_tensor(same):
    def build():
        columns = tf.unstack(ids([4, 16]))
        rows = [tf.gather(table(f"t{i}"), each) for i, each in enumerate(columns)]
        return minimize(tf.add_n([loss_of(each) for each in rows]), "SGD")

    assert same(build).received["ResourceScatterAdd"] == 1


def test_repeated_ids_are_added_in_their_order(same):
    """From 1024 ids on, TensorFlow's scatter would have its threads add them in any order."""

    def build():
        sizes = [300, 500, 223, 200, 2000, 500]
        rows = [tf.gather(table(f"t{i}"), ids([n], i)) for i, n in enumerate(sizes)]
        return minimize(tf.add_n([loss_of(each) for each in rows]), "SGD")

    # 300 + 500 + 223, 200, 2000 and 500 ids.
    assert same(build).received["ResourceScatterAdd"] == 4


def test_two_lookups_in_one_table(same):
    def build():
        first, second = table("first"), table("second")
        rows = [tf.gather(each, ids([8], seed)) for seed, each in enumerate([first, second, first])]
        return minimize(tf.add_n([loss_of(each) for each in rows]))

    fused = same(build)
    assert fused.received["ResourceGather"] == 1
    assert fused.received["ResourceSparseApplyAdagrad"] == 1


def test_ids_that_come_from_another_lookup(same):
    def build():
        first = tf.nn.embedding_lookup(table("first"), ids([8]))
        hop = tf.cast(tf.abs(first[:, 0]) * 10, tf.int64) % ROWS
        return minimize(loss_of(first) + loss_of(tf.nn.embedding_lookup(table("second"), hop)))

    same(build)
    # The first one may be updated before the second one is looked up.
    assert same.log() == ["2 tables are stored by themselves: no other one is updated like it"]


@pytest.mark.parametrize("strategy", ["div", "mod"])
def test_partitions_of_a_table(same, strategy):
    def build():
        initial = v1.random_uniform_initializer(seed=1)
        parts = v1.get_variable(
            "t", [ROWS, 4], initializer=initial, partitioner=v1.fixed_size_partitioner(3)
        )
        rows = v1.nn.embedding_lookup(parts, ids([24]), partition_strategy=strategy)
        return minimize(loss_of(rows), "SGD")

    assert same(build).received["ResourceGather"] == 1
    assert same.log() == ["3 tables and slots are stored in 1"]


def test_rows_that_are_clipped_next_to_the_table(same):
    def build():
        rows = [tf.nn.embedding_lookup(table(f"t{i}"), ids([8], i), max_norm=0.3) for i in range(3)]
        return minimize(tf.add_n([loss_of(each) for each in rows]), "Momentum")

    assert same(build).received["ResourceSparseApplyKerasMomentum"] <= 1


def test_gradients_clipped_by_their_global_norm(same):
    def build():
        optimizer = v1.train.AdagradOptimizer(0.1)
        gradients, variables = zip(*optimizer.compute_gradients(several()), strict=True)
        clipped, _ = tf.clip_by_global_norm(gradients, 0.2)
        step = v1.train.get_or_create_global_step()
        return optimizer.apply_gradients(zip(clipped, variables, strict=True), step)

    assert same(build).received["ResourceSparseApplyAdagrad"] == 1


@pytest.mark.parametrize("dtype", [tf.float64, tf.float16, tf.bfloat16])
def test_other_types(same, dtype):
    def build():
        rows = [tf.gather(table(f"t{i}", 3, dtype=dtype), ids([8], i)) for i in range(3)]
        return minimize(tf.add_n([loss_of(each) for each in rows]), "SGD")

    assert same(build).received["ResourceScatterAdd"] == 1


def test_widths_and_types_are_stored_apart(same):
    def build():
        rows = [tf.gather(table(f"w{i}", 2 + i // 2), ids([9], i)) for i in range(6)]
        rows += [tf.gather(table(f"d{i}", 2, dtype=tf.float64), ids([9], i)) for i in range(2)]
        return minimize(tf.add_n([loss_of(each) for each in rows]))

    fused = same(build)
    assert fused.received["ResourceGather"] == 4
    assert same.log() == ["16 tables and slots are stored in 8"]


# Ids that are in no table


@pytest.mark.parametrize("data_plane", [FLAT, ALONE], ids=["with other passes", "alone"])
@pytest.mark.parametrize("is_known", [True, False], ids=["known size", "any size"])
@pytest.mark.parametrize("wrong", [-1, ROWS, 2**40])
def test_an_id_beyond_its_table_is_an_error(cluster, wrong, is_known, data_plane):
    def build():
        batches = [[1, 2], [3, wrong, 3], [4]]
        rows = []
        for index, batch in enumerate(batches):
            each = tf.constant(batch, tf.int64)
            shape = [len(batch) if is_known else None]
            each = v1.placeholder_with_default(each, shape)
            rows.append(tf.gather(table(f"t{index}"), each))
        return minimize(tf.add_n([loss_of(each) for each in rows]))

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"= -1 is not in \[0, "):
        cluster.train(build, data_plane, num_ps=1)


# The rest of the graph reads the tables unchanged


@pytest.mark.parametrize("optimizer", ["SGD", "FTRL", "Adam"])
@pytest.mark.parametrize(("first", "second"), [(FLAT, None), (None, FLAT)], ids=["to", "from"])
def test_checkpoints_know_nothing_of_it(cluster, tmp_path, first, second, optimizer):
    savers = []

    def build():
        train = minimize(several(), optimizer)
        savers.append(v1.train.Saver(v1.global_variables()))
        return train

    def begin(session, fetches):
        for _ in range(3):
            session.run(fetches)
        path = savers[-1].save(session, str(tmp_path / "model"))
        shapes = {v.op.name: v.shape.as_list() for v in v1.global_variables()}
        assert tf.train.load_checkpoint(path).get_variable_to_shape_map() == shapes
        return [path]

    def go_on(session, fetches):
        savers[-1].restore(session, path)
        for _ in range(3):
            session.run(fetches)

    (path,) = cluster.train(build, first, run=begin).fetched
    expected = cluster.train(build, steps=7)
    assert cluster.train(build, second, num_ps=1, run=go_on).equals(expected)


def test_rows_are_found_outside_of_the_step(same):
    def build():
        train = minimize(several(3))
        one = next(v for v in v1.global_variables() if v.op.name == "t1")
        wanted = v1.placeholder_with_default(np.array([[0, 42], [7, 7]]), [2, 2], name="wanted")
        return [train, tf.gather(one, wanted), v1.report_uninitialized_variables()]

    def run(session, fetches):
        train, rows, missing = fetches
        found = []
        for _ in range(3):
            session.run(train)
            found.append([None, *session.run([rows, missing])])
        with pytest.raises(tf.errors.InvalidArgumentError, match="not in"):
            session.run(rows, {"wanted:0": [[0, 43], [0, 0]]})
        one = next(v for v in v1.global_variables() if v.op.name == "t1")
        one.load(np.full([43, 4], 2.0), session)
        np.testing.assert_array_equal(session.run(rows), np.full([2, 2, 4], 2.0))
        return found

    same(build, run=run)


def test_tables_are_initialized_one_by_one(cluster):
    def build():
        train = minimize(several(3))
        one, two, _ = v1.trainable_variables()
        return [train, tf.gather(one, [1]), tf.gather(two, [1]), one.initializer]

    with tf.Graph().as_default() as graph:
        v1.Session.reset(cluster.target)
        with v1.device("/job:ps/task:0"):
            train, first, second, initializer = build()
        missing = v1.report_uninitialized_variables()
        prepare(graph, FLAT, [train])
        with v1.Session(cluster.target) as session:
            assert {b"t0", b"t0/Adagrad", b"t1"} < set(session.run(missing))
            session.run(initializer)
            assert b"t0" not in session.run(missing)
            assert session.run(first).shape == (1, 4)
            with pytest.raises(tf.errors.FailedPreconditionError):
                session.run(second)


def test_rows_that_are_fetched_with_the_step(same):
    def build():
        rows = [tf.nn.embedding_lookup(table(f"t{i}"), ids([4, 3], i)) for i in range(2)]
        return [minimize(tf.add_n([loss_of(each) for each in rows])), *rows]

    same(build)


def test_twice_changes_nothing_more(cluster):
    def run(session, fetches):
        before = len(session.graph.get_operations())
        prepare(session.graph, ALONE, fetches)
        assert len(session.graph.get_operations()) == before

    def build():
        return minimize(several(), "FTRL")

    assert cluster.train(build, ALONE, run=run).equals(cluster.train(build, steps=1))


# Left alone


def leave_alone(same, use, reason, optimizer="Adagrad"):
    """Trains three tables; `use` makes the first one a special case."""

    def build():
        tables = [table(f"t{i}") for i in range(3)]
        rows = [tf.gather(each, ids([8], i)) for i, each in enumerate(tables)]
        loss = tf.add_n([loss_of(each) for each in rows]) + use(tables[0])
        return minimize(loss, optimizer)

    fused = same(build)
    assert "4 tables and slots are stored in 2" in same.log()
    assert f"1 tables are stored by themselves: {reason}" in same.log()
    return fused


def test_a_table_that_is_read_in_whole(same):
    def use(first):
        return 0.1 * tf.reduce_sum(first.read_value() ** 2)

    leave_alone(same, use, "ResourceApplyAdagrad is part of its update")


def test_a_table_that_is_read_in_a_condition(same):
    def use(first):
        batch = ids([4])
        rows = tf.cond(batch[0] > 3, lambda: tf.gather(first, batch), lambda: tf.zeros([4, 4]))
        return loss_of(tf.gather(first, batch)) * tf.reduce_sum(tf.stop_gradient(rows))

    leave_alone(same, use, "If is part of its update")


def test_tables_that_learn_at_another_rate(same):
    def build():
        losses = [loss_of(tf.gather(table(f"t{i}"), ids([8], i))) for i in range(4)]
        tables = v1.trainable_variables()
        loss = tf.add_n(losses)
        gradients = list(zip(v1.gradients(loss, tables), tables, strict=True))
        slow = v1.train.AdagradOptimizer(0.01).apply_gradients(gradients[:2])
        fast = v1.train.AdagradOptimizer(0.5).apply_gradients(gradients[2:])
        return tf.group(slow, fast)

    assert same(build).received["ResourceSparseApplyAdagrad"] == 2


def test_a_variable_is_not_larger_than_it_may_be(same, monkeypatch):
    monkeypatch.setattr(table_layout, "MOST_ELEMENTS", 2 * 52 * 4)
    assert same(lambda: minimize(several(4))).received["ResourceGather"] == 2


# Any model, on any task


def test_all_tasks_arrive_at_the_same_layout():
    """Also a worker that holds the tables itself and is on the same device as everything."""

    def stored(task, num_ps=2, **options):
        with tf.Graph().as_default() as graph:
            with on_cluster(num_ps, task, **options):
                train = minimize(several(4), "FTRL")
            prepare(graph, FLAT, [train])
            handles = [op for op in graph.get_operations() if op.type == "VarHandleOp"]
            names = {op.get_attr("shared_name").decode() for op in handles}
            return {name for name in names if name.startswith("flat/")}

    tasks = ["/job:worker/task:0", "/job:worker/task:1", "/job:ps/task:1"]
    first, *others = map(stored, tasks)
    # Three for each server, and the flags of 12 tables and slots.
    assert len(first) == 2 * 3 + 12
    assert all(each == first for each in others)


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 30), st.integers(1, 3), st.lists(st.integers(0, 5), max_size=2)),
        min_size=2,
        max_size=6,
    ),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    num_ps=st.integers(1, 2),
    dtype=st.sampled_from([tf.int32, tf.int64]),
)
def test_any_tables_get_the_same_weights(cluster, shapes, optimizer, num_ps, dtype):
    def build():
        losses = [
            loss_of(tf.gather(table(f"t{i}", width, rows), ids(shape, i, rows, dtype)))
            for i, (rows, width, shape) in enumerate(shapes)
        ]
        return minimize(tf.add_n(losses), optimizer)

    plain, fused = (cluster.train(build, each, num_ps=num_ps) for each in (None, FLAT))
    assert fused.equals(plain)
