"""Large variables in partitions: the results and checkpoints are those of the whole."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from paramserve.data_plane.partitioning import partitions_by_axis
from paramserve.data_plane.placement import ServerLoad, on_cluster, parameter_bytes, server_loads

v1 = tf.compat.v1
WORKER = "/job:worker/task:1"
LOCAL = v1.GraphKeys.LOCAL_VARIABLES

both_kinds = pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "ref"])


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(5)
        yield graph


def get(name, shape=None, **options):
    return v1.get_variable(name, shape, **{"dtype": tf.float32, **options})


def pieces(variable):
    return [tuple(piece.shape) for piece in variable]


# Where to cut


@pytest.mark.parametrize(
    ("shape", "max_bytes", "counts"),
    [
        ((10, 4), 160, [1, 1]),
        ((10, 4), 159, [2, 1]),
        ((10, 4), 50, [4, 1]),  # 3 rows fit.
        ((10, 4), 16, [10, 1]),
        ((3, 100), 200, [1, 7]),  # A row has 400 bytes, a column 12: 16 columns fit.
        ((5,), 4, [5]),
        ((5,), 1, [5]),  # An element cannot be cut.
        ((2, 3, 64, 8), 2048, [1, 1, 7, 1]),  # 10 of 64.
    ],
)
def test_the_first_axis_is_cut_if_its_rows_fit(shape, max_bytes, counts):
    assert partitions_by_axis(shape, 4, max_bytes) == counts


@both_kinds
@pytest.mark.usefixtures("graph")
def test_large_variables_come_in_pieces_spread_over_the_servers(use_resource):
    with on_cluster(2, WORKER, max_shard_bytes=400) as placed:
        small = get("small", (10, 10), use_resource=use_resource)
        table = get("table", (40, 10), use_resource=use_resource)
        wide = get("wide", (2, 150), use_resource=use_resource)
        again = get("last", (11, 10), use_resource=use_resource)
    assert isinstance(small, tf.Variable)
    assert table.name == "table"
    assert table.shape.as_list() == [40, 10]
    assert pieces(table) == [(10, 10)] * 4
    assert [piece.device[-1] for piece in table] == ["1", "0", "1", "0"]
    assert pieces(wide) == [(2, 50)] * 3
    assert pieces(again) == [(6, 10), (5, 10)]
    assert abs(placed.bytes_per_ps[0] - placed.bytes_per_ps[1]) <= 400


def test_two_builds_agree_whoever_builds():
    devices = []
    for worker in ("/job:chief/task:0", "/job:worker/task:7"):
        with tf.Graph().as_default(), on_cluster(3, worker, max_shard_bytes=1000):
            get("mine", (5000,), collections=[LOCAL])
            for i, size in enumerate((3000, 10, 700, 240, 1)):
                get(f"v{i}", (size,))
            devices.append({v.op.name: v.device for v in v1.global_variables()})
    assert devices[0] == devices[1]
    assert len(devices[0]) == 12 + 1 + 3 + 1 + 1
    large = [device for name, device in devices[0].items() if name.startswith("v0/")]
    assert {large.count(device) for device in large} == {4}


@pytest.mark.usefixtures("graph")
def test_the_rule_holds_in_scopes_and_for_whoever_gets_the_variable_again():
    with on_cluster(2, WORKER, max_shard_bytes=400):
        with v1.variable_scope("layer"):
            first = get("w", (20, 10))
        with v1.variable_scope("layer", reuse=True):
            assert get("w", (20, 10)) is first
            assert v1.get_variable("w") is first
        with v1.variable_scope("layer", reuse=v1.AUTO_REUSE):
            assert get("w", (20, 10)) is first
    assert first.name == "layer/w"
    assert pieces(first) == [(10, 10)] * 2
    assert isinstance(get("after", (20, 10)), tf.Variable)


@pytest.mark.usefixtures("graph")
def test_a_partitioner_of_the_model_wins():
    three = v1.fixed_size_partitioner(3)
    with on_cluster(2, WORKER, max_shard_bytes=100):
        asked = get("asked", (30, 10), partitioner=three)
        with v1.variable_scope("scope", partitioner=three):
            inherited = get("w", (30, 10))
    assert pieces(asked) == pieces(inherited) == [(10, 10)] * 3


def test_a_bound_below_one_byte_is_refused():
    with pytest.raises(ValueError, match="max_shard_bytes=0: expected at least 1 byte"):
        on_cluster(2, WORKER, max_shard_bytes=0).__enter__()


# Variables that stay whole


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.WARNING, "paramserve.data_plane.partitioning")
    return lambda: [record.getMessage() for record in caplog.records]


@both_kinds
@pytest.mark.usefixtures("graph")
def test_what_cannot_be_cut_is_logged_once(use_resource, lines):
    with on_cluster(2, WORKER, max_shard_bytes=100):
        plain = v1.Variable(tf.zeros([60]), use_resource=use_resource, name="plain")
        late = v1.get_variable("late", initializer=lambda: tf.zeros([50]))
        get("mine", (100,), collections=[LOCAL])
        get("pieces", (100,))
        asked = get("asked", (100,), partitioner=v1.fixed_size_partitioner(2))
        v1.train.AdamOptimizer().minimize(
            tf.reduce_sum(plain) + tf.reduce_sum(late) + tf.reduce_sum(asked)
        )
    assert lines() == [
        "variable 'plain' of 240 bytes is left whole, over max_shard_bytes=100: "
        "only get_variable's can be cut",
        "variable 'late' of 200 bytes is left whole, over max_shard_bytes=100: "
        "its shape was not given",
    ]


def test_keras_layers_stay_whole(lines):
    tf.keras.utils.clear_session()
    with tf.Graph().as_default(), on_cluster(2, WORKER, max_shard_bytes=400):
        layer = tf.keras.layers.Dense(30)
        layer(tf.ones([2, 20]))
    assert tuple(layer.kernel.shape) == (20, 30)
    [line] = lines()
    assert "dense/kernel' of 2400 bytes is left whole" in line


# Initial values


@pytest.mark.parametrize(
    "options",
    [
        {"initializer": np.arange(60, dtype=np.float32).reshape(20, 3)},
        {"initializer": tf.range(60.0)},
        {"initializer": v1.random_normal_initializer(seed=3), "shape": (20, 3)},
        {"initializer": tf.keras.initializers.GlorotUniform(seed=3), "shape": (20, 3)},
        {"initializer": v1.zeros_initializer, "shape": (20, 3)},
        {"initializer": v1.initializers.identity(), "shape": (20, 3)},
        {"initializer": tf.ones_initializer(), "shape": (20, 3)},
    ],
    ids=["array", "tensor", "seed", "keras", "class", "identity", "ones"],
)
def test_initial_values_are_those_of_the_whole(options):
    values = []
    for max_bytes in (None, 100):
        with tf.Graph().as_default(), on_cluster(2, "/job:ps/task:0", max_shard_bytes=max_bytes):
            v1.set_random_seed(5)
            given = dict(options)
            if tf.is_tensor(given["initializer"]):
                given["initializer"] = tf.range(60.0)
            variable = v1.get_variable("v", **given)
            assert isinstance(variable, tf.Variable) == (max_bytes is None)
            values.append(run(tf.convert_to_tensor(variable)))
    np.testing.assert_array_equal(values[1], values[0])


@pytest.mark.usefixtures("graph")
def test_random_pieces_are_scaled_as_the_whole_and_differ():
    with on_cluster(1, "/job:ps/task:0", max_shard_bytes=4 * 50 * 100):
        default = get("default", (1000, 50))
        keras = get("keras", (1000, 50), initializer=tf.keras.initializers.GlorotUniform())
    bound = np.sqrt(6 / 1050)
    for variable in (default, keras):
        assert len(list(variable)) == 10
        value = run(tf.convert_to_tensor(variable))
        assert 0.99 * bound < np.abs(value).max() <= bound
        assert not np.array_equal(value[:100], value[100:200])


# Training


def local_session():
    return v1.Session(config=v1.ConfigProto(allow_soft_placement=True))


def run(tensor):
    """The value in a session of this process alone, after initialization."""
    init = v1.global_variables_initializer()
    clear_devices()
    with local_session() as session:
        session.run(init)
        return session.run(tensor)


def clear_devices():
    for op in v1.get_default_graph().get_operations():
        op._set_device("")


OPTIMIZERS = {
    "sgd": lambda: v1.train.GradientDescentOptimizer(0.1),
    "momentum": lambda: v1.train.MomentumOptimizer(0.1, 0.9),
    "adam": lambda: v1.train.AdamOptimizer(0.1),
    "ftrl": lambda: v1.train.FtrlOptimizer(0.1),
}


def build(optimizer, use_resource=True):
    """A table looked up with a repeated id, and a matrix, both large."""
    random = np.random.RandomState(1)
    table = get("table", initializer=random.randn(20, 6).astype("f"), use_resource=use_resource)
    matrix = get("matrix", initializer=random.randn(6, 30).astype("f"), use_resource=use_resource)
    rows = tf.nn.embedding_lookup(table, [0, 7, 7, 13, 19])
    loss = tf.reduce_sum(tf.matmul(rows, matrix) ** 2) / 100
    pairs = optimizer.compute_gradients(loss)
    assert isinstance(pairs[0][0], tf.IndexedSlices)
    update = optimizer.apply_gradients(pairs)
    return loss, update


def train(max_bytes, optimizer, steps=3, *, start=None, save=None, **options):
    """Returns losses of some steps, the values afterwards by logical name, and bytes per server."""
    with tf.Graph().as_default(), on_cluster(2, WORKER, max_shard_bytes=max_bytes):
        loss, update = build(OPTIMIZERS[optimizer](), **options)
        held = parameter_bytes(v1.global_variables())
        init, saver = v1.global_variables_initializer(), v1.train.Saver()
        clear_devices()
        with local_session() as session:
            if start is None:
                session.run(init)
            else:
                saver.restore(session, start)
            losses = [session.run([loss, update])[0] for _ in range(steps)]
            path = saver.save(session, save, write_meta_graph=False)
    reader = v1.train.load_checkpoint(path)
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    return losses, values, held


def assert_same(found, expected):
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_pieces_train_as_the_whole_does(optimizer, tmp_path):
    whole = train(None, optimizer, save=str(tmp_path / "whole"))
    cut = train(120, optimizer, save=str(tmp_path / "cut"))
    assert_same(cut, whole)
    # Slots follow their pieces: nothing but the powers is on one side only.
    assert abs(cut[2][0] - cut[2][1]) <= 3 * 120 + 8


def test_ref_variables_train_as_the_whole_does(tmp_path):
    whole = train(None, "adam", save=str(tmp_path / "whole"), use_resource=False)
    cut = train(100, "adam", save=str(tmp_path / "cut"), use_resource=False)
    assert_same(cut, whole)


@pytest.mark.parametrize(("saved", "restored"), [(None, 120), (120, None), (240, 120)])
def test_checkpoints_hold_the_whole(saved, restored, tmp_path):
    expected = train(None, "adam", 5, save=str(tmp_path / "expected"))
    first = train(saved, "adam", 3, save=str(tmp_path / "first"))
    then = train(restored, "adam", 2, start=str(tmp_path / "first"), save=str(tmp_path / "then"))
    assert_same((first[0] + then[0], then[1]), expected)


# The parameters of each server


def test_the_load_of_each_server():
    with tf.Graph().as_default(), on_cluster(2, WORKER, max_shard_bytes=400):
        get("table", (25, 10))
        get("bias", (7,))
        get("mine", (50,), collections=[LOCAL])
        loads = server_loads([*v1.global_variables(), *v1.local_variables()])
    assert loads == {
        0: ServerLoad(bytes=360 + 28, variables=2, largest="table/part_0", largest_bytes=360),
        1: ServerLoad(bytes=320 + 320, variables=2, largest="table/part_1", largest_bytes=320),
    }
    assert server_loads([]) == {}


def test_one_huge_variable_does_not_make_one_server_do_all():
    # VGG-16's: 411 of its 553 MB are one matrix.
    convolutions = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    convolutions += [(256, 512), *[(512, 512)] * 5]
    shapes = [(3, 3, *channels) for channels in convolutions]
    shapes += [(25088, 4096), (4096, 4096), (4096, 1000)]
    totals = {}
    for max_bytes in (None, 64 << 20):
        with tf.Graph().as_default(), on_cluster(2, WORKER, max_shard_bytes=max_bytes) as placed:
            for i, shape in enumerate(shapes):
                get(f"weights{i}", shape)
                get(f"bias{i}", shape[-1:])
        totals[max_bytes] = placed.bytes_per_ps
    total = sum(totals[None])
    assert max(totals[None]) > 0.7 * total
    assert max(totals[64 << 20]) < 0.53 * total
