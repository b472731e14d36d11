"""`RowSparseAdamOptimizer`: Adam on the rows that a step touches, and nothing on the others."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve import train
from paramserve.train.adam import RowSparseAdamOptimizer

v1 = tf.compat.v1

both_kinds = pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "ref"])

ROWS, WIDTH = 7, 3
RATE, BETA1, BETA2, EPSILON = 0.1, 0.8, 0.95, 1e-3
START = np.random.RandomState(0).randn(ROWS, WIDTH)
IDS = [[1, 4, 1], [4, 0, 0], [1, 1, 1], [6, 4, 0]]
GRADIENTS = np.random.RandomState(1).randn(4, 3, WIDTH)


def reference():
    """The table and both averages after each step, one row at a time."""
    table, m, v = START.copy(), np.zeros_like(START), np.zeros_like(START)
    steps = []
    for t, (ids, gradients) in enumerate(zip(IDS, GRADIENTS, strict=True), 1):
        for row in set(ids):
            g = sum(gradients[i] for i, id_ in enumerate(ids) if id_ == row)
            m[row] = BETA1 * m[row] + (1 - BETA1) * g
            v[row] = BETA2 * v[row] + (1 - BETA2) * g**2
            rate = RATE * np.sqrt(1 - BETA2**t) / (1 - BETA1**t)
            table[row] -= rate * m[row] / (np.sqrt(v[row]) + EPSILON)
        steps.append([table.copy(), m.copy(), v.copy()])
    return steps


def build(make, use_resource=True, rows=ROWS, dtype=tf.float32):
    start = np.resize(START, (rows, WIDTH))
    table = v1.get_variable(
        "table", initializer=tf.constant(start, dtype), use_resource=use_resource
    )
    ids, gradients = v1.placeholder(tf.int64, [None]), v1.placeholder(dtype, [None, WIDTH])
    optimizer = make(RATE, BETA1, BETA2, EPSILON)
    slices = tf.IndexedSlices(gradients, ids, tf.constant([rows, WIDTH], tf.int64))
    update = optimizer.apply_gradients([(slices, table)])

    def step(session, i):
        session.run(update, {ids: IDS[i], gradients: GRADIENTS[i]})

    return table, optimizer, step


def states(make, steps=4, **model):
    """The table and both averages after each step."""
    with tf.Graph().as_default():
        table, optimizer, step = build(make, **model)
        state = [table, optimizer.get_slot(table, "m"), optimizer.get_slot(table, "v")]
        init = v1.global_variables_initializer()
        found = []
        with v1.Session() as session:
            session.run(init)
            for i in range(steps):
                step(session, i)
                found.append(session.run(state))
        return found


@both_kinds
@pytest.mark.parametrize(("dtype", "error"), [(tf.float32, 1e-5), (tf.float64, 1e-6)])
def test_touched_rows_follow_the_formula_and_others_stay(use_resource, dtype, error):
    found = states(RowSparseAdamOptimizer, use_resource=use_resource, dtype=dtype)
    for i, (ours, expected) in enumerate(zip(found, reference(), strict=True)):
        np.testing.assert_allclose(ours, expected, rtol=error, atol=error)
        untouched = [row for row in range(ROWS) if row not in IDS[i]]
        before = found[i - 1] if i else [START.astype(dtype.as_numpy_dtype), 0 * START, 0 * START]
        for now, then in zip(ours, before, strict=True):
            np.testing.assert_array_equal(now[untouched], then[untouched])


def test_adam_itself_moves_rows_on_that_a_step_does_not_touch():
    first, second = (state[0] for state in states(train.AdamOptimizer, steps=2))
    assert np.all(first[1] != second[1])  # Row 1 is in the first step only.


@both_kinds
def test_it_is_adam_when_all_rows_are_touched(monkeypatch, use_resource):
    monkeypatch.setattr(f"{__name__}.IDS", [[0, 1, 2], [2, 1, 0], [0, 2, 1], [1, 0, 2]])
    ours, adam = (
        states(make, use_resource=use_resource, rows=3)
        for make in (RowSparseAdamOptimizer, train.AdamOptimizer)
    )
    np.testing.assert_allclose(ours, adam, rtol=1e-6)


@both_kinds
def test_dense_gradients_are_adams(use_resource):
    results = []
    for make in (v1.train.AdamOptimizer, RowSparseAdamOptimizer):
        with tf.Graph().as_default():
            table = v1.get_variable("table", initializer=START, use_resource=use_resource)
            update = make(0.1).minimize(tf.reduce_sum(table**2))
            init = v1.global_variables_initializer()
            with v1.Session() as session:
                session.run(init)
                for _ in range(3):
                    session.run(update)
                results.append(session.run(table))
    np.testing.assert_array_equal(results[1], results[0])


def full_shape_ops(make, use_resource, rows):
    """Ops of an update that make, or take, a tensor of the table's shape; and all its ops."""
    with tf.Graph().as_default() as graph:
        build(make, use_resource, rows)
        ops = [op for op in graph.get_operations() if op.name.startswith("Adam/")]
    # A reference is no tensor: the op hands on where the variable is.
    full = [
        op.type
        for op in ops
        for output in op.outputs
        if output.shape.as_list() == [rows, WIDTH] and not output.dtype._is_ref_dtype
    ]
    return full, [op.type for op in ops]


@both_kinds
def test_the_work_of_a_step_does_not_grow_with_the_table(use_resource):
    full, ops = full_shape_ops(RowSparseAdamOptimizer, use_resource, 1_000)
    assert full == []
    assert full_shape_ops(RowSparseAdamOptimizer, use_resource, 1_000_000) == ([], ops)
    assert full_shape_ops(train.AdamOptimizer, use_resource, 1_000)[0] != []


def test_an_update_with_no_rows_is_one_too():
    _, optimizer, _ = build(RowSparseAdamOptimizer)
    table = v1.trainable_variables()[0]
    none = tf.IndexedSlices(tf.zeros([0, WIDTH]), tf.zeros([0], tf.int64))
    update = optimizer.apply_gradients([(none, table)])
    power, _ = optimizer._get_beta_accumulators()
    init = v1.global_variables_initializer()
    with v1.Session() as session:
        session.run(init)
        session.run(update)
        np.testing.assert_array_equal(session.run(table), START.astype(np.float32))
        assert session.run(power) == pytest.approx(BETA1**2)


def test_a_lookup_in_pieces_trains_its_rows():
    with v1.variable_scope("", partitioner=v1.fixed_size_partitioner(2)):
        table = v1.get_variable("table", [6, 2], initializer=v1.ones_initializer())
    loss = tf.reduce_sum(tf.nn.embedding_lookup(table, [0, 5, 5]))
    update = RowSparseAdamOptimizer(0.5).minimize(loss)
    init, value = v1.global_variables_initializer(), tf.convert_to_tensor(table)
    with v1.Session() as session:
        session.run(init)
        session.run(update)
        trained = session.run(value)
    np.testing.assert_allclose(trained[:, 0], [0.5, 1, 1, 1, 1, 0.5], atol=1e-6)


@pytest.mark.parametrize("first", [v1.train.AdamOptimizer, RowSparseAdamOptimizer])
def test_checkpoints_have_adams_names(tmp_path, first):
    makes = [first, *{v1.train.AdamOptimizer, RowSparseAdamOptimizer} - {first}]
    values = []
    for i, make in enumerate(makes):
        with tf.Graph().as_default():
            _, _, step = build(make)
            init, saver = v1.global_variables_initializer(), train.Saver()
            with v1.Session() as session:
                if i == 0:
                    session.run(init)
                    step(session, 0)
                    saver.save(session, str(tmp_path / "model"))
                else:
                    saver.restore(session, str(tmp_path / "model"))
                values.append(session.run({v.op.name: v for v in v1.global_variables()}))
    assert values[0].keys() == values[1].keys()
    assert sorted(values[0]) == ["beta1_power", "beta2_power", *("table" + s for s in SLOTS)]
    for name, value in values[0].items():
        np.testing.assert_array_equal(values[1][name], value)


SLOTS = ("", "/Adam", "/Adam_1")


def test_it_is_reached_through_train():
    assert train.RowSparseAdamOptimizer is RowSparseAdamOptimizer
    assert "RowSparseAdamOptimizer" not in train.__all__  # Which are TensorFlow's names.
