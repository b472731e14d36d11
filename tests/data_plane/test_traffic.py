"""The traffic of a step, computed from its graph."""

import tensorflow as tf

from paramserve.data_plane.options import DataPlane
from paramserve.data_plane.placement import on_cluster
from paramserve.data_plane.prepare import prepare
from paramserve.data_plane.traffic import Traffic, find_traffic

v1 = tf.compat.v1


def test_traffic_is_told_by_parameter_server_before_and_after_packing():
    with tf.Graph().as_default() as graph:
        with on_cluster(2, "/job:worker/task:0"):
            large = v1.get_variable("large", [100, 10])  # 4,000 bytes on ps 0.
            small = [v1.get_variable(f"small{i}", [10]) for i in range(4)]  # 40 each on ps 1.
            loss = tf.reduce_sum(large**2) + sum(tf.reduce_sum(each**2) for each in small)
            train = v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        plain = find_traffic(graph, [train])
        assert {index: each.pulled_bytes for index, each in plain.items()} == {0: 4000, 1: 160}
        # The learning rate crosses as well.
        assert {index: each.pushed_bytes for index, each in plain.items()} == {0: 4004, 1: 164}
        prepare(graph, DataPlane(), [train])
        assert find_traffic(graph, [train]) == {0: Traffic(4000, 4000, 2), 1: Traffic(160, 160, 2)}


def test_rows_of_a_batch_of_any_size_are_told_apart():
    with tf.Graph().as_default() as graph:
        with on_cluster(1, "/job:worker/task:0"):
            table = v1.get_variable("table", [10, 4])
            ids = v1.placeholder(tf.int64, [None])
            rows = tf.nn.embedding_lookup(table, ids)
            fixed = tf.nn.embedding_lookup(table, [1, 2])
            total = tf.reduce_sum(rows) + tf.reduce_sum(fixed)
        traffic = find_traffic(graph, [total])[0]
        assert (traffic.pulled_bytes, traffic.unsized) == (2 * 4 * 4, 2)


def test_without_parameter_servers_there_is_none():
    with tf.Graph().as_default() as graph:
        loss = tf.reduce_sum(v1.get_variable("w", [3]) ** 2)
        train = v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        assert find_traffic(graph, [train]) == {}
