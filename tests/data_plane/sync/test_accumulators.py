"""Gradients that are pushed together: exact means, and few tensors that cross."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.cluster.spec import Role
from paramserve.data_plane.sync.gradients import GradientAccumulators
from paramserve.model.spec import TrainSpec

v1 = tf.compat.v1


@pytest.fixture(params=[True, False], ids=["resource", "ref"])
def graph(request):
    with tf.Graph().as_default() as graph, v1.variable_scope("", use_resource=request.param):
        yield graph


def variable(name, value, dtype=tf.float32, **more):
    return v1.get_variable(name, initializer=tf.constant(value, dtype), **more)


def accumulators_of(graph):
    """The shapes of the accumulators of dense gradients."""
    ops = [op for op in graph.get_operations() if op.type == "ResourceConditionalAccumulator"]
    return [tf.TensorShape(op.get_attr("shape")).as_list() for op in ops]


def pushed(pairs, times=2, *, step=0, bucket_bytes=4 << 20):
    """Returns the means after all gradients were pushed `times` times."""
    meeting = GradientAccumulators(pairs, bucket_bytes=bucket_bytes, name="t")
    push = meeting.push(tf.constant(step, tf.int64))
    taken = [mean for mean, _ in meeting.take(times)]
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for _ in range(times):
            session.run(push)
        return session.run([mean for mean in taken if mean is not None])


# The mean


def test_means_have_the_shapes_of_their_variables_and_the_order_of_the_pairs(graph):
    shapes = [(2, 3), (), (4,), (1, 2, 2), (0, 3)]
    values = [np.full(shape, 0.1 * i, np.float32) for i, shape in enumerate(shapes)]
    pairs = [(tf.constant(v), variable(f"v{i}", v)) for i, v in enumerate(values)]
    pairs.insert(1, (None, variable("unused", 1.0)))
    means = pushed(pairs)
    assert accumulators_of(graph) == [[15]]
    for mean, value in zip(means, values, strict=True):
        np.testing.assert_array_equal(mean, value)


def test_the_mean_of_different_gradients(graph):
    fed = v1.placeholder(tf.float32, [2])
    pairs = [(fed, variable("a", [0.0, 0.0])), (fed[:1] * 10, variable("b", [0.0]))]
    meeting = GradientAccumulators(pairs, name="t")
    push = meeting.push(tf.constant(0, tf.int64))
    taken = meeting.take(2)
    assert [each.op.name for _, each in taken] == ["a", "b"]
    with v1.Session() as session:
        session.run(push, {fed: [1, 5]})
        session.run(push, {fed: [2, 9]})
        means = session.run([mean for mean, _ in taken])
    np.testing.assert_array_equal(np.concatenate(means), [1.5, 7, 15])


def test_each_dtype_has_a_bucket_of_its_own(graph):
    dtypes = [tf.float32, tf.float64, tf.float16, tf.bfloat16, tf.float32, tf.bfloat16]
    pairs = [(tf.constant([1.5, i], d), variable(f"v{i}", [0, 0], d)) for i, d in enumerate(dtypes)]
    means = pushed(pairs)
    assert sorted(accumulators_of(graph)) == [[2], [2], [4], [4]]
    for i, (mean, dtype) in enumerate(zip(means, dtypes, strict=True)):
        assert mean.dtype == dtype.as_numpy_dtype
        np.testing.assert_array_equal(mean.astype(float), [1.5, i])


def test_a_gradient_of_unknown_shape_is_packed_if_its_variable_has_one(graph):
    unknown = v1.placeholder_with_default([[1.0, 2.0]], None)
    pairs = [(unknown, variable("a", [[0.0, 0.0]])), (tf.constant([3.0]), variable("b", [0.0]))]
    means = pushed(pairs)
    np.testing.assert_array_equal(means[0], [[1, 2]])
    assert accumulators_of(graph) == [[3]]


def test_a_gradient_of_another_shape_than_its_variable_fails(graph):
    wrong = v1.placeholder_with_default([[1.0, 2.0, 3.0]], None)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
        pushed([(wrong, variable("a", [[0.0, 0.0]])), (tf.constant(1.0), variable("b", 0.0))])


def test_a_variable_without_a_shape_is_left_alone(graph):
    loose = v1.get_variable(
        "loose", initializer=v1.placeholder_with_default([0.0], None), validate_shape=False
    )
    means = pushed([(tf.constant([4.0, 5.0]), loose), (tf.constant(1.0), variable("b", 0.0))])
    np.testing.assert_array_equal(means[0], [4, 5])
    assert [op.type for op in graph.get_operations()].count("ResourceConditionalAccumulator") == 2


def test_the_mean_of_rows_can_be_made_a_tensor(graph):
    rows = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), tf.constant([2, 0, 2]))
    meeting = GradientAccumulators([(rows, variable("table", [[0.0]] * 3))], name="t")
    push = meeting.push(tf.constant(0, tf.int64))
    whole = tf.convert_to_tensor(meeting.take(1)[0][0])
    assert whole.shape.as_list() == [3, 1]
    with v1.Session() as session:
        session.run(push)
        np.testing.assert_array_equal(session.run(whole), [[2], [0], [5]])


def test_rows_are_averaged_over_all_workers(graph):
    rows = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), tf.constant([2, 0, 2]))
    [mean] = pushed([(rows, variable("table", [[0.0]] * 3))])
    np.testing.assert_array_equal(mean.indices, [0, 2])
    np.testing.assert_array_equal(mean.values, [[2], [5]])


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64])
def test_rows_have_the_dtype_of_their_variable(graph, dtype):
    rows = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]], dtype), tf.constant([2, 0, 2]))
    [mean] = pushed([(rows, variable("table", [[0.0]] * 3, dtype))])
    assert mean.values.dtype == dtype.as_numpy_dtype
    np.testing.assert_array_equal(mean.values.astype(float), [[2], [5]])


def test_sums_of_16_bits_neither_overflow_nor_lose_what_is_small(graph):
    """The largest float16 is 65504; as bfloat16, 256 + 1 is 256."""
    large = tf.constant([40_000.0], tf.float16)
    ids = [1] * 300
    pairs = [
        (large, variable("dense", [0.0], tf.float16)),
        (tf.IndexedSlices(large, tf.constant([0])), variable("rows", [0.0], tf.float16)),
        (
            tf.IndexedSlices(tf.ones([300], tf.bfloat16), tf.constant(ids)),
            variable("repeated", [0.0, 0.0], tf.bfloat16),
        ),
    ]
    dense, rows, repeated = pushed(pairs, times=3)
    assert dense == rows.values == large.dtype.as_numpy_dtype(40_000)
    assert repeated.values.astype(float) == 300


def test_something_else_than_a_gradient_is_refused(graph):
    with pytest.raises(ValueError, match="gradient of a:0 is a str, expected a tensor"):
        GradientAccumulators([("x", variable("a", 0.0))], name="t")
    with pytest.raises(ValueError, match="no variable has a gradient"):
        GradientAccumulators([(None, variable("b", 0.0))], name="t")


# Buckets


def test_buckets_are_filled_in_order_and_large_gradients_are_cut(graph):
    sizes = [6, 5, 40, 10, 3]
    pairs = [(tf.range(n * 1.0), variable(f"v{n}", [0.0] * n)) for n in sizes]
    means = pushed(pairs, bucket_bytes=48)
    # 6 and 5; 40 in pieces of 12 at most; 10; 3 would make 13 of it.
    assert sorted(accumulators_of(graph)) == [[3], [10], [10], [10], [10], [10], [11]]
    for mean, n in zip(means, sizes, strict=True):
        np.testing.assert_array_equal(mean, np.arange(n))


def test_without_buckets_each_gradient_goes_by_itself(graph):
    pairs = [(tf.ones([n]), variable(f"v{n}", [0.0] * n)) for n in (1, 2, 3)]
    pushed(pairs, bucket_bytes=0)
    assert sorted(accumulators_of(graph)) == [[1], [2], [3]]


def test_every_task_finds_the_same_accumulators():
    """Their names depend on their own contents, and on nothing else in a graph."""

    def names(sizes, device):
        with tf.Graph().as_default() as graph, v1.device(device):
            tf.constant(1)
            pairs = [(tf.ones([n]), variable(f"v{i}", [0.0] * n)) for i, n in enumerate(sizes)]
            GradientAccumulators(pairs, bucket_bytes=16, name="t")
            return {
                op.get_attr("shared_name")
                for op in graph.get_operations()
                if op.type == "ResourceConditionalAccumulator"
            }

    assert names([1, 2, 3], "/job:chief") == names([1, 2, 3], "/job:worker")
    assert len(names([1, 2, 3], "") & names([1, 3, 3], "")) == 1  # The name of the last one.


def test_late_gradients_are_dropped(graph):
    pairs = [(tf.constant([1.0]), variable("a", [0.0])), (tf.constant(3.0), variable("b", 0.0))]
    meeting = GradientAccumulators(pairs, name="t")
    late, due = (meeting.push(tf.constant(step, tf.int64)) for step in (4, 5))
    [accumulator] = meeting.accumulators
    start, left = accumulator.start(tf.constant(5, tf.int64)), accumulator.leftover()
    with v1.Session() as session:
        session.run(start)
        session.run(late)
        assert session.run(left.count) == 0
        session.run(due)
        assert session.run(left.count) == 1
        session.run(left.drop)
        assert session.run(left.count) == 0


# Transfers


def received(metadata, receiver):
    """Names of the tensors that a task's part of the graph receives from another task."""
    return [
        node.attr["tensor_name"].s.decode()
        for partition in metadata.partition_graphs
        for node in partition.node
        if node.op == "_Recv" and receiver in node.device
    ]


def test_forty_variables_on_two_servers_cross_as_a_handful_of_tensors(two_ps_cluster, build_graph):
    def build(task):
        loss = 0.0
        for number in range(40):
            weight = v1.get_variable(f"w{number}", [number + 1], initializer=v1.ones_initializer())
            loss += tf.reduce_sum(weight**2)
        return TrainSpec(loss=loss, optimizer=v1.train.GradientDescentOptimizer(0.1), examples=3)

    common = {"num_ps": 2, "sync": True}
    chief = build_graph(build, **common)
    worker = build_graph(build, role=Role.WORKER, **common)
    chief_session = two_ps_cluster.session(chief.graph)
    for each in (chief.init_op, chief.local_init_op, chief.sync.start):
        chief_session.run(each)
    chief_session.run(chief.sync.issue_tokens, {chief.sync.counts: [2, 0]})
    session = two_ps_cluster.session(worker.graph, Role.WORKER)
    session.run(worker.local_init_op)
    session.run(worker.sync.take_token)
    options = v1.RunOptions(output_partition_graphs=True)
    metadata = v1.RunMetadata()
    session.run(worker.sync.train_op, options=options, run_metadata=metadata)
    # A bucket and a step number each; the step with the examples, and the word that ps 1 is done.
    assert len(received(metadata, "ps/replica:0/task:0")) <= 3
    assert len(received(metadata, "ps/replica:0/task:1")) == 2
