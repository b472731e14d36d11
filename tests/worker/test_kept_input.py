"""A worker's input and the sessions that come and go."""

import pytest
import tensorflow as tf

from paramserve.cluster.runtime import start_server
from paramserve.cluster.session import BoundedCloseSession
from paramserve.worker.kept_input import keep_input

v1 = tf.compat.v1


def read(target, graph, element, count, open_input=None):
    config = v1.ConfigProto()
    config.experimental.share_session_state_in_clusterspec_propagation = True
    with BoundedCloseSession(target, graph, config) as session:
        if open_input is not None:
            session.run(open_input)
        return [int(session.run(element)) for _ in range(count)]


def build():
    graph = tf.Graph()
    with graph.as_default():
        dataset = tf.data.Dataset.range(7).map(lambda n: n * 10)
        return graph, v1.data.make_one_shot_iterator(dataset).get_next()


def test_a_new_session_goes_on_with_the_input_and_does_not_begin_again():
    target = start_server("127.0.0.1").target
    graph, element = build()
    assert [read(target, graph, element, 2) for _ in range(2)] == [[0, 10], [0, 10]]

    graph, element = build()
    opened = keep_input(graph)
    assert read(target, graph, element, 2, opened) == [0, 10]
    assert [read(target, graph, element, 2) for _ in range(2)] == [[20, 30], [40, 50]]


def test_input_that_has_ended_stays_at_its_end():
    target = start_server("127.0.0.1").target
    graph, element = build()
    read(target, graph, element, 7, keep_input(graph))
    with pytest.raises(tf.errors.OutOfRangeError):
        read(target, graph, element, 1)


def test_another_graph_has_an_input_of_its_own():
    target = start_server("127.0.0.1").target
    for _ in range(2):
        graph, element = build()
        assert read(target, graph, element, 2, keep_input(graph)) == [0, 10]


def test_a_graph_without_such_an_iterator_is_left_as_it_is():
    graph = tf.Graph()
    with graph.as_default():
        v1.data.make_initializable_iterator(tf.data.Dataset.range(3)).get_next()
    before = len(graph.get_operations())
    assert keep_input(graph) is None
    assert len(graph.get_operations()) == before
