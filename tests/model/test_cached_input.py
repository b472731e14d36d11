"""Input that is made once in a process, although each session begins its input anew."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve import TaskContext, UsageError

v1 = tf.compat.v1


@pytest.fixture
def made():
    """Which elements were made, in order."""
    return []


@pytest.fixture
def following(made):
    """The next element of a cached dataset of three, in the default graph."""

    def make(number):
        made.append(int(number))
        return np.float32(10 * number)

    def slow(number):
        value = tf.numpy_function(make, [number], tf.float32)
        value.set_shape([])
        return {"number": number, "more": (value, tf.strings.as_string(number))}

    with tf.Graph().as_default():
        dataset = TaskContext().cached(tf.data.Dataset.range(3).map(slow))
        yield v1.data.make_one_shot_iterator(dataset).get_next()


def read(following, most=10):
    found = []
    with v1.Session(graph=following["number"].graph) as session:
        try:
            while len(found) < most:
                found.append(session.run(following))
        except tf.errors.OutOfRangeError:
            pass
    return found


def test_a_second_session_reads_what_was_made_for_the_first(following, made):
    first = read(following)
    assert [each["number"] for each in first] == [0, 1, 2]
    assert [each["more"] for each in first] == [(0.0, b"0"), (10.0, b"1"), (20.0, b"2")]
    assert made == [0, 1, 2]
    assert [read(following) for _ in range(2)] == [first, first]
    assert made == [0, 1, 2]


def test_what_was_made_in_part_is_made_anew(following, made):
    assert len(read(following, most=2)) == 2
    before = len(made)
    assert [each["number"] for each in read(following)] == [0, 1, 2]
    assert made[before:] == [0, 1, 2]
    read(following)
    assert made[before:] == [0, 1, 2]


def test_shapes_and_types_are_those_of_the_dataset(following):
    assert following["number"].dtype == tf.int64
    assert following["more"][0].shape == ()
    assert following["more"][1].dtype == tf.string


def test_it_can_be_read_without_a_graph():
    dataset = TaskContext().cached(tf.data.Dataset.range(2))
    assert [list(dataset.as_numpy_iterator()) for _ in range(2)] == [[0, 1], [0, 1]]


def test_elements_have_to_be_dense():
    ragged = tf.data.Dataset.from_tensors(tf.ragged.constant([[1], [2, 3]]))
    with pytest.raises(
        UsageError, match="expected elements of dense tensors, not RaggedTensorSpec"
    ):
        TaskContext().cached(ragged)
