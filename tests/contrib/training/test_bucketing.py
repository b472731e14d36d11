"""`bucket` and `bucket_by_sequence_length`: alike elements come together."""

import time

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.training.bucketing import bucket, bucket_by_sequence_length

v1 = tf.compat.v1


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


def by_bucket(batches):
    """Returns the batches of each bucket, in the order of arrival."""
    grouped = {}
    for which, batch in batches:
        grouped.setdefault(int(which), []).append([each.tolist() for each in batch])
    return grouped


def test_each_batch_is_of_one_bucket_and_in_the_order_of_the_input(
    each_mode_graph, one_by_one, take
):
    number = one_by_one(np.arange(12))
    batches = take(bucket([number, number * 10], number % 3, batch_size=2, num_buckets=3))
    assert by_bucket(batches) == {
        0: [[[0, 3], [0, 30]], [[6, 9], [60, 90]]],
        1: [[[1, 4], [10, 40]], [[7, 10], [70, 100]]],
        2: [[[2, 5], [20, 50]], [[8, 11], [80, 110]]],
    }


def test_bucket_is_an_int32_scalar(graph):
    which, (batch,) = bucket([tf.zeros([3])], 0, batch_size=4, num_buckets=2)
    assert which.dtype == tf.int32
    assert which.shape == []
    assert batch.shape == [4, 3]


def test_a_dictionary_gives_a_dictionary(graph, one_by_one, take):
    number = one_by_one(np.arange(4))
    elements = {"square": number**2, "number": number}
    ((_, batch),) = take(bucket(elements, 0, batch_size=4, num_buckets=1))
    assert {name: values.tolist() for name, values in batch.items()} == {
        "number": [0, 1, 2, 3],
        "square": [0, 1, 4, 9],
    }


def test_what_does_not_fill_a_batch_is_dropped(graph, one_by_one, take):
    number = one_by_one(np.arange(7))
    batches = take(bucket([number], number % 2, batch_size=3, num_buckets=2))
    assert by_bucket(batches) == {0: [[[0, 2, 4]]], 1: [[[1, 3, 5]]]}


def test_or_makes_a_smaller_batch(each_mode_graph, one_by_one, take):
    number = one_by_one(np.arange(7))
    outputs = bucket(
        [number], number % 2, batch_size=3, num_buckets=2, allow_smaller_final_batch=True
    )
    assert outputs[1][0].shape.as_list() == [None]
    assert by_bucket(take(outputs)) == {0: [[[0, 2, 4]], [[6]]], 1: [[[1, 3, 5]]]}


def test_each_bucket_has_its_batch_size(graph, one_by_one, take):
    number = one_by_one(np.arange(6))
    outputs = bucket([number], number % 2, batch_size=[3, 1], num_buckets=2)
    assert outputs[1][0].shape.as_list() == [None]
    assert by_bucket(take(outputs)) == {0: [[[0, 2, 4]]], 1: [[[1]], [[3]], [[5]]]}


def test_batch_size_may_be_a_tensor(graph, one_by_one, take):
    size = v1.placeholder_with_default(2, [])
    number = one_by_one(np.arange(5))
    outputs = bucket([number], 0, batch_size=size, num_buckets=1)
    assert by_bucket(take(outputs)) == {0: [[[0, 1]], [[2, 3]]]}


def test_batches_may_be_larger_than_a_bucket(graph, one_by_one, take):
    number = one_by_one(np.arange(20))
    ((_, (batch,)),) = take(bucket([number], 0, batch_size=20, num_buckets=1, capacity=2))
    assert batch.tolist() == list(range(20))


def test_elements_are_kept_or_dropped(each_mode_graph, one_by_one, take):
    number = one_by_one(np.arange(8))
    outputs = bucket([number], number % 2, batch_size=2, num_buckets=2, keep_input=number > 3)
    assert by_bucket(take(outputs)) == {0: [[[4, 6]]], 1: [[[5, 7]]]}


def test_nothing_comes_with_keep_input_false(graph, one_by_one, take):
    number = one_by_one(np.arange(8))
    assert take(bucket([number], 0, batch_size=1, num_buckets=2, keep_input=False)) == []


def test_elements_without_a_bucket_are_dropped(each_mode_graph, one_by_one, take):
    number = one_by_one(np.arange(8))
    outputs = bucket([number], number - 2, batch_size=1, num_buckets=2)
    assert by_bucket(take(outputs)) == {0: [[[2]]], 1: [[[3]]]}


def test_dimensions_are_padded_to_the_longest_of_a_batch(each_mode_graph, one_by_one, take):
    number = one_by_one(np.array([1, 3, 2, 2]))
    word = tf.fill([number], "a")
    outputs = bucket([tf.ones([number]), word], 0, 2, 1, dynamic_pad=True)
    assert outputs[1][0].shape.as_list() == [2, None]
    first, second = by_bucket(take(outputs))[0]
    assert first == [[[1, 0, 0], [1, 1, 1]], [[b"a", b"", b""], [b"a"] * 3]]
    assert second == [[[1, 1], [1, 1]], [[b"a", b"a"], [b"a", b"a"]]]


def test_sparse_tensors_come_in_a_sparse_batch(each_mode_graph, one_by_one, take):
    number = one_by_one(np.array([5, 6]))
    sparse = tf.SparseTensor([[2]], [number], [4])
    ((_, batch),) = take(bucket({"sparse": sparse, "number": number}, 0, 2, 1))
    assert batch["sparse"].dense_shape.tolist() == [2, 4]
    assert batch["sparse"].indices.tolist() == [[0, 2], [1, 2]]
    assert batch["sparse"].values.tolist() == [5, 6]


def test_a_sparse_batch_has_one_dimension_more(each_mode_graph, take):
    words = tf.SparseTensor([[0]], [7.0], [3])
    _, (by_hand, whole) = bucket([words, tf.sparse.from_dense(tf.zeros([2, 5]))], 0, 4, 1)
    assert [by_hand.shape.as_list(), whole.shape.as_list()] == [[None] * 2, [None] * 3]
    words = v1.SparseTensorValue([[0]], [7.0], [3])
    _, (by_length,) = bucket_by_sequence_length(1, [words], 4, [2])
    products = [
        tf.sparse.sparse_dense_matmul(each, tf.ones([3, 2])) for each in (by_hand, by_length)
    ]
    assert [product.shape.as_list() for product in products] == [[None, 2]] * 2
    for product in take(products, steps=1)[0]:
        assert product.tolist() == [[7, 7]] * 4


@pytest.mark.parametrize("shapes", [[[], [3]], {"vector": [3], "number": []}])
def test_shapes_may_be_given(graph, one_by_one, take, shapes):
    number = one_by_one(np.arange(2))
    unknown = v1.placeholder_with_default(tf.fill([3], number), None)
    elements = {"vector": unknown, "number": number}
    _, batch = bucket(elements, 0, 2, 1, shapes=shapes)
    assert batch["vector"].shape == [2, 3]
    assert take(batch)[0]["vector"].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_many_threads_bring_each_element_once(graph, one_by_one, take):
    number = one_by_one(np.arange(60))
    outputs = bucket([number], number % 3, 4, 3, num_threads=5, capacity=3)
    batches = take(outputs)
    assert all((batch % 3 == which).all() for which, (batch,) in batches)
    assert sorted(np.concatenate([batch for _, (batch,) in batches])) == list(range(60))


def test_capacities_bound_what_waits(graph, one_by_one, running):
    number = one_by_one(np.arange(1000))
    bucket([number], number % 2, 2, 2, capacity=1, bucket_capacities=[5, 3])
    summary = v1.summary.merge_all()

    def sizes(session):
        parsed = v1.Summary.FromString(session.run(summary))
        return {value.tag.rpartition("/")[2]: value.simple_value for value in parsed.value}

    with running() as session:
        while (last := sizes(session))["queue_0_size"] < 5 and last["queue_1_size"] < 3:
            time.sleep(0.01)
        for _ in range(20):
            now = sizes(session)
            assert now["queue_0_size"] <= 5
            assert now["queue_1_size"] <= 3
            assert now["fraction_of_top_queue_full"] == 1


def test_sessions_share_queues_by_name(one_by_one):
    server = v1.train.Server.create_local_server()
    writing, reading = tf.Graph(), tf.Graph()
    with writing.as_default():
        bucket([one_by_one(np.arange(4))], 0, 2, 1, shared_name="ours", name="writing")
    with reading.as_default():
        taken = bucket([tf.constant(0, tf.int64)], 0, 2, 1, shared_name="ours", name="reading")
    coordinator = v1.train.Coordinator()
    with v1.Session(server.target, graph=writing) as writer, writing.as_default():
        threads = v1.train.start_queue_runners(writer, coordinator)
        with v1.Session(server.target, graph=reading) as reader:
            assert [reader.run(taken)[1][0].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
        coordinator.request_stop()
        coordinator.join(threads)


def test_an_error_of_the_input_is_reported(graph, running):
    bad = tf.debugging.check_numerics(tf.constant(np.nan), "no number")
    outputs = bucket([bad], 0, 1, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="no number"), running() as session:
        session.run(outputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": [1, 2]}, "batch_size is a list of 2: it must have exactly num_buckets=3"),
        ({"batch_size": (1, 2, 3, 4)}, "batch_size is a list of 4"),
        ({"bucket_capacities": [1, 2]}, "bucket_capacities is a list of 2"),
        ({"bucket_capacities": []}, "bucket_capacities is a list of 0"),
        ({"batch_size": 0}, "batch_size=0: expected at least 1"),
        ({"num_buckets": 0}, "num_buckets=0"),
        ({"tensors": []}, "tensors of bucket.. is empty"),
        ({"tensors": {}}, "tensors of bucket.. is empty"),
        ({"which_bucket": [0, 1]}, r"which_bucket has the shape \(2,\)"),
        ({"keep_input": [True, False]}, r"keep_input has the shape \(2,\)"),
        ({"shapes": [[], []]}, "shapes has 2 entries, and tensors 1"),
    ],
)
def test_mistakes_are_named(graph, arguments, message):
    defaults = {"tensors": [tf.zeros([])], "which_bucket": 0, "batch_size": 2, "num_buckets": 3}
    with pytest.raises(ValueError, match=message):
        bucket(**defaults | arguments)


def test_shapes_have_to_be_known(graph):
    partly, unknown = v1.placeholder(tf.int32, [None]), v1.placeholder(tf.int32)
    with pytest.raises(ValueError, match="All shapes must be fully defined"):
        bucket([partly], 0, 2, 1)
    with pytest.raises(ValueError, match="at least their ranks"):
        bucket([unknown], 0, 2, 1, dynamic_pad=True)


def test_scalars_of_unknown_shape_are_checked_when_they_run(each_mode_graph, take, running):
    which, keep = v1.placeholder_with_default(1, None), v1.placeholder_with_default(True, None)
    size = v1.placeholder_with_default(2, None)
    length = v1.placeholder_with_default(5, None)
    outputs = bucket([tf.constant(7)], which, size, num_buckets=2, keep_input=keep)
    ((bucket_taken, (batch,)),) = take(outputs, steps=1)
    assert (bucket_taken, batch.tolist()) == (1, [7, 7])
    lengths, _ = bucket_by_sequence_length(length, [tf.constant(7)], size, [3], keep_input=keep)
    assert take(lengths, steps=1)[0].tolist() == [5, 5]
    wrong = v1.placeholder_with_default([0, 1], None)
    outputs = bucket([tf.constant(7)], wrong, 2, num_buckets=2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
        take(outputs)


def test_there_has_to_be_a_graph():
    with pytest.raises(RuntimeError, match=r"with tf.Graph\(\).as_default"):
        bucket([0], 0, 2, 1)
    with pytest.raises(RuntimeError, match=r"bucket_by_sequence_length\(\) makes queues"):
        bucket_by_sequence_length(1, [0], 2, [1])


# By sequence length


def test_sequences_of_about_the_same_length_come_together(each_mode_graph, one_by_one, take):
    length = one_by_one(np.array([1, 2, 3, 4, 5, 6, 7, 99]))
    outputs = bucket_by_sequence_length(
        length,
        {"sequence": tf.fill([length], length)},
        batch_size=2,
        bucket_boundaries=[3, 5, 7],
        dynamic_pad=True,
    )
    batches = take(outputs)
    assert sorted(lengths.tolist() for lengths, _ in batches) == [[1, 2], [3, 4], [5, 6], [7, 99]]
    for lengths, batch in batches:
        expected = [[n] * n + [0] * (max(lengths) - n) for n in lengths]
        assert batch["sequence"].tolist() == expected


def test_length_and_tensors_keep_their_kind(graph):
    length = tf.constant(3, tf.int64)
    lengths, batch = bucket_by_sequence_length(
        length, [tf.zeros([2]), "text"], 5, bucket_boundaries=(1,), shapes=[[2], []]
    )
    assert (lengths.dtype, lengths.shape) == (tf.int64, [5])
    assert [(each.dtype, each.shape.as_list()) for each in batch] == [
        (tf.float32, [5, 2]),
        (tf.string, [5]),
    ]


def test_options_reach_the_buckets(graph, one_by_one, take):
    length = one_by_one(np.arange(10))
    outputs = bucket_by_sequence_length(
        length,
        {"number": length},
        batch_size=[2, 3],
        bucket_boundaries=[5],
        num_threads=2,
        capacity=3,
        bucket_capacities=[2, 2],
        shapes={"number": []},
        allow_smaller_final_batch=True,
        keep_input=length > 1,
        name="by_length",
    )
    assert outputs[0].op.name.startswith("by_length/")
    sizes = sorted(len(lengths) for lengths, _ in take(outputs))
    assert sizes == [1, 2, 2, 3]


@pytest.mark.parametrize(
    ("boundaries", "error", "message"),
    [
        (5, TypeError, "bucket_boundaries=5 must be a list or tuple"),
        (np.array([1, 2]), TypeError, "must be a list or tuple"),
        ([], ValueError, "bucket_boundaries must not be empty"),
        ([1.5], TypeError, "integers, but 1.5 is not"),
        ([1, 2.0], TypeError, "integers, but 2.0 is not"),
        ([1, 3, 2], ValueError, "must be increasing, but 3 comes before 2"),
        ([1, 1], ValueError, "must be increasing, but 1 comes before 1"),
    ],
)
def test_boundaries_have_to_increase(graph, boundaries, error, message):
    with pytest.raises(error, match=message):
        bucket_by_sequence_length(3, [0], 2, boundaries)


@pytest.mark.parametrize("what", ["batch_size", "bucket_capacities"])
def test_lists_have_one_entry_more_than_boundaries(graph, what):
    arguments = {"batch_size": 2, "bucket_boundaries": [3, 6], what: [4, 4]}
    with pytest.raises(
        ValueError, match=f"{what} is a list of 2: it must have exactly num_buckets=3"
    ):
        bucket_by_sequence_length(3, [0], **arguments)
