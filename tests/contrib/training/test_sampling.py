"""`rejection_sample` and `stratified_sample`: elements are accepted by chance."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.training.sampling import (
    acceptance_probabilities,
    rejection_sample,
    stratified_sample,
)

v1 = tf.compat.v1


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(7)
        yield graph


def bound(share, count):
    """Four standard deviations of a share in `count` independent draws."""
    return 4 * (share * (1 - share) / count) ** 0.5


# Rejection


def test_certain_elements_stay_in_order(each_mode_graph, one_by_one, take):
    number = one_by_one(np.arange(9))
    outputs = rejection_sample([number, number * 10], lambda tensors: tensors[0] % 2, 2)
    batches = take(outputs)
    assert [[each.tolist() for each in batch] for batch in batches] == [
        [[1, 3], [10, 30]],
        [[5, 7], [50, 70]],
    ]


def test_a_single_tensor_comes_in_a_list(graph, one_by_one, take):
    outputs = rejection_sample([one_by_one(np.arange(4.0))], lambda tensors: 1.0, batch_size=4)
    assert isinstance(outputs, list)
    assert outputs[0].shape == [4]
    assert take(outputs)[0][0].tolist() == [0, 1, 2, 3]


def test_elements_are_accepted_with_their_probability(each_mode_graph, take):
    coin = tf.random.uniform([], maxval=2, dtype=tf.int32)
    outputs = rejection_sample([coin], lambda tensors: tf.gather([0.9, 0.3], tensors[0]), 100)
    share = np.mean(take(outputs, steps=8))
    assert abs(share - 0.25) < bound(0.25, 800)


def test_batches_are_taken_apart(each_mode_graph, one_by_one, take):
    pair = one_by_one(np.arange(8).reshape(4, 2))
    shapes = []

    def accept(tensors):
        shapes.extend(each.shape.as_list() for each in tensors)
        return tf.cast(tensors[0] > 2, tf.float32)

    outputs = rejection_sample(
        [pair, tf.stack([pair, pair], 1)], accept, 5, enqueue_many=True, prebatch_capacity=3
    )
    ((numbers, vectors),) = take(outputs)
    assert shapes == [[], [2]]
    assert numbers.tolist() == [3, 4, 5, 6, 7]
    assert vectors.tolist() == [[n, n] for n in (3, 4, 5, 6, 7)]


def test_many_threads_judge_each_element_once(graph, one_by_one, take):
    five = one_by_one(np.arange(100).reshape(20, 5))
    outputs = rejection_sample(
        [five],
        lambda tensors: tensors[0] % 2,
        10,
        enqueue_many=True,
        queue_threads=3,
        prebatch_threads=3,
        name="odd",
    )
    assert outputs[0].op.name.startswith("odd/")
    assert sorted(np.concatenate(take(outputs), axis=None)) == list(range(1, 100, 2))


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_probabilities_are_checked_on_request(graph, running, probability):
    given = v1.placeholder_with_default(probability, [])
    outputs = rejection_sample([0], lambda tensors: given, 2, runtime_checks=True)
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match=r"not in \[0, 1\]"),
        running() as session,
    ):
        session.run(outputs)


def test_unchecked_probabilities_above_one_accept(graph, one_by_one, take):
    outputs = rejection_sample([one_by_one(np.arange(4))], lambda tensors: 7.0, 4)
    assert take(outputs)[0][0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("tensors", "enqueue_many", "message"),
    [
        ([], False, "is empty"),
        ([0], True, "is a scalar: with enqueue_many=True, expected a batch"),
        ([[0], [0, 1]], True, "expected the same batch dimension"),
    ],
)
def test_tensors_of_a_rejection_sample_have_to_fit(graph, tensors, enqueue_many, message):
    with pytest.raises(ValueError, match=message):
        rejection_sample(tensors, lambda tensors: 1.0, 2, enqueue_many=enqueue_many)


def test_a_tensor_is_no_list_of_tensors(graph):
    for tensors in (5, tf.zeros([3])):
        with pytest.raises(TypeError, match="put it into a list"):
            rejection_sample(tensors, lambda tensors: 1.0, 2)


def test_one_probability_for_one_element(graph):
    with pytest.raises(ValueError, match=r"returned the shape \(2,\): expected a scalar"):
        rejection_sample([0], lambda tensors: [0.5, 0.5], 2)


def test_there_has_to_be_a_graph():
    with pytest.raises(RuntimeError, match=r"with tf.Graph\(\).as_default"):
        rejection_sample([0], lambda tensors: 1.0, 2)
    with pytest.raises(RuntimeError, match=r"stratified_sample\(\) makes queues"):
        stratified_sample([0], 0, [1.0], 2)


# Strata


def draw(probabilities, shape=()):
    """Classes that come with these probabilities."""
    logits = tf.math.log([probabilities])
    return tf.reshape(tf.random.categorical(logits, int(np.prod(shape)), dtype=tf.int32), shape)


@pytest.mark.parametrize("enqueue_many", [False, True])
def test_classes_come_in_the_proportions_wanted(each_mode_graph, take, enqueue_many):
    label = draw([0.6, 0.3, 0.1], [16] if enqueue_many else [])
    (data,), labels = stratified_sample(
        [tf.stack([label, label * 10], -1)],
        label,
        target_probs=[0.2, 0.2, 0.6],
        init_probs=[0.6, 0.3, 0.1],
        batch_size=50,
        enqueue_many=enqueue_many,
    )
    assert (data.shape.as_list(), labels.shape.as_list()) == ([50, 2], [50])
    batches = take([data, labels], steps=8)
    classes = np.concatenate([labels for _, labels in batches])
    for index, wanted in enumerate([0.2, 0.2, 0.6]):
        assert abs(np.mean(classes == index) - wanted) < bound(wanted, 400)
    for data_batch, label_batch in batches:
        assert data_batch.tolist() == [[label, label * 10] for label in label_batch]


def test_proportions_of_the_input_are_estimated(each_mode_graph, running):
    label = draw([0.8, 0.2], [16])
    _, labels = stratified_sample([label], label, [0.5, 0.5], 50, enqueue_many=True)
    (counts,) = v1.global_variables()
    assert counts.op.name == "stratified_sample/class_count"
    assert v1.trainable_variables() == []
    with running() as session:
        taken = [session.run(labels) for _ in range(12)]
        seen = session.run(counts.read_value())
    # As each class starts with 10, the first elements are judged badly.
    assert abs(np.mean(taken[4:]) - 0.5) < bound(0.5, 400)
    # To take 600 from 80 % and 20 %, 300 of the rare class have to be seen.
    assert 1000 < seen.sum() < 2500
    assert abs(seen[1] / seen.sum() - 0.2) < bound(0.2, seen.sum()) + 10 / seen.sum()


def test_each_element_is_counted_once(graph, one_by_one, running):
    label = one_by_one(np.array([0, 1, 1, 1, 0, 1, 1]))
    _, labels = stratified_sample([label], label, [0.5, 0.5], 1, threads_per_queue=2)
    (counts,) = v1.global_variables()
    with running() as session:
        with contextlib.suppress(tf.errors.OutOfRangeError):
            while True:
                session.run(labels)
        assert session.run(counts.read_value()).tolist() == [12, 15]


def test_classes_that_are_not_wanted_never_come(graph, take):
    label = draw([0.5, 0.3, 0.2])
    _, labels = stratified_sample([label], label, [0.0, 0.5, 0.5], 20, [0.5, 0.3, 0.2])
    assert set(np.concatenate(take(labels, steps=5))) == {1, 2}


def test_a_class_that_does_not_come_and_is_not_wanted_is_fine(graph, take):
    label = draw([0.5, 0.5])
    _, labels = stratified_sample([label], label, [0.5, 0.5, 0.0], 20, [0.5, 0.5, 0.0])
    assert set(np.concatenate(take(labels, steps=5))) == {0, 1}


def test_the_most_wanted_class_is_always_accepted(graph):
    initial, target = tf.constant([0.5, 0.3, 0.2, 0]), tf.constant([0.25, 0.25, 0.5, 0])
    accepted = acceptance_probabilities(initial, target)
    with v1.Session() as session:
        values = session.run(accepted)
    np.testing.assert_allclose(values, [0.2, 1 / 3, 1, 0], rtol=1e-6)
    # The accepted examples have the wanted proportions.
    shares = values * [0.5, 0.3, 0.2, 0]
    np.testing.assert_allclose(shares / shares.sum(), [0.25, 0.25, 0.5, 0], rtol=1e-6)


# Of 80 % and 20 %, the first target takes 20 % + 20 %, the second 7/12 of 80 %, and 20 %.
@pytest.mark.parametrize(("target", "warnings"), [([0.5, 0.5], 10), ([0.7, 0.3], 0)])
def test_there_is_a_warning_when_most_is_dropped(each_mode_graph, take, capfd, target, warnings):
    label = draw([0.8, 0.2])
    _, labels = stratified_sample([label], label, target, 20, [0.8, 0.2])
    take(labels, steps=2)
    assert capfd.readouterr().err.count("rejected by sampler is high") == warnings


THIRDS = [1 / 3] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tensors": []}, "is empty"),
        ({"labels": [0, 1]}, "enqueue_many=False, expected a scalar"),
        ({"enqueue_many": True}, "enqueue_many=True, expected a vector"),
        ({"enqueue_many": True, "labels": [0, 1]}, "is a scalar"),
        (
            {"enqueue_many": True, "labels": [0, 1], "tensors": [[0, 0, 0]]},
            "expected the same batch dimension",
        ),
        ({"target_probs": [[1.0]]}, r"target_probs has the shape \(1, 1\)"),
        ({"target_probs": 1.0}, r"target_probs has the shape \(\)"),
        ({"target_probs": []}, "target_probs has the shape"),
        ({"target_probs": [0.5, 0.6]}, "target_probs must be probabilities: not negative, and sum"),
        ({"target_probs": [1.5, -0.5]}, "target_probs must be probabilities"),
        ({"init_probs": [0.1] * 3}, "init_probs must be probabilities"),
        ({"init_probs": [0.5, 0.5]}, "init_probs has 2 entries, and target_probs 3"),
        ({"init_probs": [0.5, 0.5, 0.0]}, "zero initial probability must have zero target"),
    ],
)
def test_mistakes_are_named(graph, arguments, message):
    defaults = {
        "tensors": [tf.zeros([])],
        "labels": 0,
        "target_probs": THIRDS,
        "batch_size": 2,
        "init_probs": THIRDS,
    }
    with pytest.raises(ValueError, match=message):
        stratified_sample(**defaults | arguments)


def test_tensors_have_to_be_a_list(graph):
    for tensors in (5, tf.zeros([1, 3]), v1.SparseTensorValue([[0]], [1], [1])):
        with pytest.raises(TypeError, match="is not a list of tensors"):
            stratified_sample(tensors, 0, THIRDS, 2)


def test_scalars_may_be_of_unknown_shape(each_mode_graph, take, running):
    label = v1.placeholder_with_default(1, None)
    _, labels = stratified_sample([0], label, [0.5, 0.5], 2, [0.5, 0.5])
    many = v1.placeholder_with_default([1, 1, 1], None)
    _, more_labels = stratified_sample(
        [[0, 0, 0]], many, [0.5, 0.5], 2, [0.5, 0.5], enqueue_many=True
    )
    probability = v1.placeholder_with_default(1.0, None)
    (accepted,) = rejection_sample([7], lambda _: probability, 2)
    values = take([labels, more_labels, accepted], steps=1)[0]
    assert [each.tolist() for each in values] == [[1, 1], [1, 1], [7, 7]]
    _, labels = stratified_sample([0], many, [0.5, 0.5], 2, [0.5, 0.5])
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with expected shape"),
        running() as session,
    ):
        session.run(labels)


def test_the_number_of_classes_has_to_be_known(graph):
    with pytest.raises(ValueError, match="number of classes, is known"):
        stratified_sample([0], 0, v1.placeholder(tf.float32, [None]), 2)


def test_labels_have_to_be_integers(graph):
    with pytest.raises(TypeError, match="labels must be integers, and not float32"):
        stratified_sample([0], 0.0, [0.5, 0.5], 2)


def test_many_classes_in_single_precision_are_probabilities(graph):
    counts = np.random.default_rng(1).integers(1, 100, 20_000).astype(np.float32)
    stratified_sample([0], 0, counts / counts.sum(), 2)


@pytest.mark.parametrize(
    ("label", "target", "initial", "message"),
    [
        (2, [0.5, 0.5], [0.5, 0.5], r"labels must be in \[0, 2\)"),
        (-1, [0.5, 0.5], [0.5, 0.5], r"labels must be in \[0, 2\)"),
        (0, [0.5, 0.6], [0.5, 0.5], "target_probs must be probabilities"),
        (0, [0.5, 0.5], [1.5, -0.5], "init_probs must be probabilities"),
        (0, [0.5, 0.5], [1.0, 0.0], "zero initial probability must have zero target"),
    ],
)
def test_values_that_are_known_late_are_checked_late(
    each_mode_graph, running, label, target, initial, message
):
    label = v1.placeholder_with_default(label, [])
    target, initial = (v1.placeholder_with_default(probs, [2]) for probs in (target, initial))
    outputs = stratified_sample([0], label, target, 2, initial)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message), running() as session:
        session.run(outputs)
