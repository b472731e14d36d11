"""The input in shards as a dataset, and how a graph counts which of its batches were applied."""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import pytest
import tensorflow as tf

from paramserve.cluster.spec import Role
from paramserve.data_plane.options import DataPlane
from paramserve.data_plane.prepare import prepare
from paramserve.errors import UsageError
from paramserve.model.input.source import Lease
from paramserve.model.spec import TaskContext, TrainSpec

v1 = tf.compat.v1
BOUNDED = v1.RunOptions(timeout_in_ms=30_000)


class Script:
    """A source that deals the test's shards, and records its calls."""

    def __init__(self, *leases):
        self._leases = leases
        self.unread = []
        self.reasons = []
        self.read_out = []

    def leases(self, plan):
        for lease in self._leases:
            yield lease
            self.read_out.append(lease.number)

    def note_unread(self, number, batches, explain):
        self.unread.append((number, batches))
        self.reasons.append(explain())


@pytest.fixture
def run():
    """Makes a dataset in a graph of its own and returns its elements."""

    def run(make, *, one_shot=True):
        with tf.Graph().as_default():
            dataset = make()
            if one_shot:
                iterator = v1.data.make_one_shot_iterator(dataset)
            else:
                iterator = v1.data.make_initializable_iterator(dataset)
            following, found = iterator.get_next(), []
            with v1.Session() as session:
                if not one_shot:
                    session.run(iterator.initializer)
                try:
                    while True:
                        position, batch = session.run(following, options=BOUNDED)
                        found.append((position.tolist(), batch.tolist()))
                except tf.errors.OutOfRangeError:
                    return found

    return run


def no_fifty(numbers):
    """Fails for record 50."""
    with tf.control_dependencies([tf.debugging.assert_none_equal(numbers, np.int64(50))]):
        return tf.identity(numbers) * 2


# The dataset


@pytest.mark.parametrize("one_shot", [True, False])
def test_without_a_chief_a_process_reads_every_record_of_every_epoch(run, one_shot):
    task = TaskContext()
    found = run(lambda: task.shards(103, batch_size=10, epochs=2, seed=5), one_shot=one_shot)
    epochs = [[b for p, b in found if p[1] == epoch] for epoch in (0, 1)]
    for batches in epochs:
        assert sorted(chain(*batches)) == list(range(103))
        assert sorted(len(batch) for batch in batches) == [3] + [10] * 10
    assert epochs[0] != epochs[1]
    again = run(lambda: task.shards(103, batch_size=10, epochs=2, seed=5))
    assert [batch for _, batch in found] == [batch for _, batch in again]


def test_in_order_and_without_end(run):
    def make():
        return TaskContext().shards(20, batch_size=10, shuffle=False).take(5)

    assert [batch[0] for _, batch in run(make)] == [0, 10, 0, 10, 0]


def test_a_leases_batches_are_read_in_its_order_and_are_always_the_same(run):
    leases = [Lease(7, 1, 0, (0, 1, 2, 3)), Lease(8, 1, 0, (3, 1))]
    source = Script(*leases)
    task = TaskContext(input=source)
    found = run(lambda: task.shards(100, batch_size=5, shard_records=20, epochs=2))
    assert [p for p, _ in found] == [[b, 0, 7] for b in (4, 5, 6, 7)] + [[7, 0, 8], [5, 0, 8]]
    assert [b for _, b in found[4:]] == [found[3][1], found[1][1]]
    assert sorted(chain(*(b for _, b in found[:4]))) == list(range(20, 40))
    assert source.read_out == [7, 8]


def test_a_batch_that_cannot_be_read_is_left_out_and_the_source_knows(run):
    source = Script(Lease(0, 1, 0, (0, 1, 2)), Lease(1, 0, 0, (0,)))
    task = TaskContext(input=source)
    found = run(lambda: task.shards(90, batch_size=10, read=no_fifty, shard_records=30))
    assert len(found) == 3
    assert all(value % 2 == 0 for _, batch in found for value in batch)
    ((lease, (unread,)),) = source.unread
    assert [lease, unread] not in [[p[2], p[0]] for p, _ in found]
    assert source.reasons[0].startswith("record 50: InvalidArgumentError: assertion failed")
    assert source.read_out == [0, 1]


def test_a_read_that_needs_its_own_graph_is_not_tried_again(run):
    source = Script(Lease(0, 0, 0, (0, 1)))

    def make():
        fifty = v1.placeholder_with_default(np.int64(5), [])

        def read(numbers):
            with tf.control_dependencies([tf.debugging.assert_none_equal(numbers, fifty)]):
                return tf.identity(numbers)

        return TaskContext(input=source).shards(20, batch_size=10, read=read, shuffle=False)

    assert [p[0] for p, _ in run(make, one_shot=False)] == [1]
    assert source.reasons == ["the input could not read it, see the log of the worker"]


def test_without_a_chief_nothing_is_left_out_in_silence(run):
    with pytest.raises(tf.errors.OpError, match=r"JobFailed: .* record 50: .* assertion failed"):
        run(lambda: TaskContext().shards(90, batch_size=10, epochs=1, read=no_fifty))


@pytest.fixture
def write(tmp_path):
    """Writes a file of lines: `write("a", 7)` has a0 to a6."""

    def write(name, lines):
        path = tmp_path / name
        path.write_text("".join(f"{name}{i}\n" for i in range(lines)))
        return str(path)

    return write


def test_files_are_read_one_at_a_time(run, write):
    files = {write("a", 7): 7, write("b", 4): 4}
    source = Script(Lease(1, 0, 0, (0, 2)), Lease(2, 1, 0, (0, 1)))
    task = TaskContext(input=source)
    found = run(lambda: task.file_shards(files, tf.data.TextLineDataset, batch_size=3))
    assert found == [
        ([0, 0, 1], [b"a0", b"a1", b"a2"]),
        ([2, 0, 1], [b"a6"]),
        ([3, 0, 2], [b"b0", b"b1", b"b2"]),
        ([4, 0, 2], [b"b3"]),
    ]
    assert source.unread == []


def test_a_missing_file_is_named_before_anything_is_read(run, write, tmp_path):
    files = {write("a", 7): 7, str(tmp_path / "b"): 4, str(tmp_path): 5}
    for role in ("worker", "evaluator"):
        with tf.Graph().as_default(), pytest.raises(UsageError, match=r"/b', '.* do not exist"):
            TaskContext(role).file_shards(files, tf.data.TextLineDataset, batch_size=3)
    # The chief reads nothing, and may be where no file is.
    with tf.Graph().as_default():
        TaskContext("chief").file_shards(files, tf.data.TextLineDataset, batch_size=3)


def test_a_file_that_goes_away_is_named(run, write, tmp_path):
    files = {write("a", 7): 7, write("b", 4): 4}

    def make():
        dataset = TaskContext(input=source).file_shards(
            files, tf.data.TextLineDataset, batch_size=3
        )
        (tmp_path / "b").unlink()
        return dataset

    source = Script(Lease(0, 0, 0, (0,)), Lease(1, 1, 0, (0,)))
    with pytest.raises(tf.errors.OpError, match=r"UsageError: the file '.*/b' does not exist"):
        run(make)


@pytest.mark.parametrize("said", [3, 6, 7, 12, 30])
@pytest.mark.parametrize("has", [6, 8])
def test_a_wrong_number_of_records_is_an_error_by_name(run, write, has, said):
    """Also where only whole batches are missing, or too many."""
    files = {write("a", has): said}
    if has == said:
        files[write("b", 3)] = 2
    with pytest.raises(tf.errors.OpError) as caught:
        run(
            lambda: TaskContext().file_shards(
                files, tf.data.TextLineDataset, batch_size=3, epochs=1, shuffle=False
            )
        )
    name, has, said = ("b", 3, 2) if has == said else ("a", has, said)
    assert f"/{name}' has {has} records, but task.file_shards() was given {said}" in str(
        caught.value
    )


def test_after_a_damaged_record_the_rest_of_its_file_is_left_out(run, tmp_path):
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(12):
            writer.write(b"%d" % number * 20)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    source = Script(Lease(0, 0, 0, tuple(range(6))))
    task = TaskContext(input=source)
    found = run(lambda: task.file_shards({str(path): 12}, tf.data.TFRecordDataset, batch_size=2))
    assert [p[0] for p, _ in found] == [0, 1, 2]
    assert source.unread == [(0, [3, 4, 5])]
    assert "corrupted record" in source.reasons[0]


def test_too_few_shards_for_the_workers_are_refused():
    with tf.Graph().as_default(), pytest.raises(UsageError, match="has 3 shards for 2 workers"):
        TaskContext(num_workers=2).shards(30, batch_size=10)


def test_fewer_files_than_workers_keep_some_of_them_waiting(write, caplog):
    files = {write("a", 6): 6}
    with tf.Graph().as_default():
        task = TaskContext("chief", num_workers=2)
        task.file_shards(files, tf.data.TextLineDataset, batch_size=2)
    assert "1 files or parts of files" in caplog.text
    with tf.Graph().as_default(), pytest.raises(UsageError, match="'a' has 0 records"):
        TaskContext().file_shards({"a": 0}, tf.data.TextLineDataset, batch_size=10)
    with tf.Graph().as_default(), pytest.raises(UsageError, match="has no files"):
        TaskContext().file_shards({}, tf.data.TextLineDataset, batch_size=10)


# The counts


def model(*, position=lambda position: position, sources=(), **more):
    """Weight i counts how often record i was applied; several ps have one such weight each."""

    def build(task):
        source = sources[task.index] if task.role == "worker" and sources else task.input
        task = TaskContext(task.role, task.index, task.num_workers, 1, task.sync, input=source)
        dataset = task.shards(24, batch_size=2, shard_records=4, seed=1, **more)
        at, numbers = v1.data.make_one_shot_iterator(dataset).get_next()
        weights = [
            v1.get_variable(f"w{i}", [24], initializer=v1.zeros_initializer()) for i in range(3)
        ]
        loss = -sum(tf.reduce_sum(tf.gather(each, numbers)) for each in weights)
        return TrainSpec(
            loss=loss * task.num_workers if task.sync else loss,
            optimizer=v1.train.GradientDescentOptimizer(1.0),
            examples=tf.size(numbers),
            position=position(at),
        )

    return build


@pytest.mark.parametrize(
    "options",
    [DataPlane(), DataPlane(storage="flat"), DataPlane(max_shard_bytes=16)],
    ids=["plain", "flat", "partitioned"],
)
def test_a_step_counts_its_batch_with_its_update(two_ps_cluster, build_graph, options):
    built = build_graph(model(epochs=1), role=Role.WORKER, num_ps=2, data_plane=options)
    prepare(built.graph, options, built.steps)
    session = two_ps_cluster.session(built.graph, Role.WORKER)
    session.run(built.init_op)
    session.run(built.local_init_with_tables)
    with built.graph.as_default():
        weights = [
            tf.concat([v for v in v1.global_variables() if v.op.name.split("/")[0] == f"w{i}"], 0)
            for i in range(3)
        ]
    for step in range(1, 13):
        position, _ = session.run([built.spec.position, built.train_op], options=BOUNDED)
        applied, values = session.run([built.input.applied, weights])
        assert applied.sum() == step
        assert applied[position[0]] == 1
        for value in values:
            assert value.sum() == 2 * step
    with pytest.raises(tf.errors.OutOfRangeError):
        session.run(built.train_op)
    assert session.run(built.input.applied).tolist() == [1] * 12
    assert session.run(built.examples) == 24


def test_a_step_may_be_of_several_batches(cluster, build_graph):
    def two_at_once(task):
        dataset = TaskContext().shards(24, batch_size=2, epochs=1, seed=1).batch(3)
        positions, numbers = v1.data.make_one_shot_iterator(dataset).get_next()
        weights = v1.get_variable("w", [24], initializer=v1.zeros_initializer())
        loss = -tf.reduce_sum(tf.gather(weights, numbers))
        optimizer = v1.train.GradientDescentOptimizer(1.0)
        return TrainSpec(loss=loss, optimizer=optimizer, position=positions)

    built = build_graph(two_at_once, role=Role.WORKER)
    session = cluster.session(built.graph, Role.WORKER)
    session.run(built.init_op)
    for _ in range(4):
        session.run(built.train_op, options=BOUNDED)
    assert session.run(built.input.applied).tolist() == [1] * 12


def test_counts_are_saved_and_restored_with_the_model(cluster, build_graph, tmp_path):
    saving = build_graph(model(epochs=1))
    chief = cluster.session(saving.graph)
    chief.run(saving.init_op)
    built = build_graph(model(epochs=1), role=Role.WORKER)
    session = cluster.session(built.graph, Role.WORKER)
    for _ in range(5):
        session.run(built.train_op, options=BOUNDED)
    with saving.graph.as_default():
        path = saving.saver.save(chief, str(tmp_path / "model"), write_meta_graph=False)
    before = session.run(built.input.applied).tolist()
    session.run(built.train_op, options=BOUNDED)
    with saving.graph.as_default():
        saving.saver.restore(chief, path)
    assert session.run(built.input.applied).tolist() == before
    assert tf.train.load_variable(path, "paramserve/input").tolist() == before
    assert "paramserve/input" in saving.init_own


def test_in_sync_mode_batches_of_late_gradients_are_not_counted(cluster, build_graph):
    """Two workers; one gradient is so late that the step takes two of the other worker."""
    sources = [
        Script(Lease(0, 0, 0, (0, 1)), Lease(1, 1, 0, (0, 1))),
        Script(Lease(0, 2, 0, (0, 1))),
    ]
    common = {"num_workers": 2, "sync": True}
    build = model(sources=sources, epochs=1, shuffle=False)
    chief = build_graph(build, role=Role.CHIEF, **common)
    session = cluster.session(chief.graph)
    session.run([chief.init_op])
    session.run(chief.local_init_op)
    sync = chief.sync
    session.run(sync.start)
    workers = []
    for index in range(2):
        built = build_graph(build, role=Role.WORKER, index=index, **common)
        own = cluster.session(built.graph, Role.WORKER, index)
        own.run(built.local_init_with_tables)
        workers.append((built, own))
    session.run(sync.issue_tokens, {sync.counts: [2, 1, 0]}, options=BOUNDED)
    for built, own in workers:
        own.run(built.sync.take_token, options=BOUNDED)
    (fast, fast_session), (late, late_session) = workers

    def counted():
        return np.flatnonzero(session.run(chief.input.applied)).tolist()

    def step(*workers):
        with ThreadPoolExecutor() as pool:
            for built, own in workers:
                pool.submit(own.run, built.train_op, options=BOUNDED)
            session.run(sync.apply_step, options=BOUNDED)

    fast_session.run(fast.train_op, options=BOUNDED)  # Its second token is there already.
    assert counted() == [], "it is not applied yet"
    step((fast, fast_session))
    assert counted() == [0, 1]
    late_session.run(late.train_op, options=BOUNDED)
    step((fast, fast_session), (late, late_session))
    assert counted() == [0, 1, 2, 5], "batch 4 came too late"
    assert session.run(chief.examples) == 8
    weights = session.run(chief.graph.get_tensor_by_name("w0/Read/ReadVariableOp:0"))
    assert np.flatnonzero(weights).tolist() == [0, 1, 2, 3, 4, 5, 10, 11]


# Mistakes


def test_a_model_that_does_not_say_what_it_read_is_told_how(build_graph):
    with pytest.raises(UsageError, match=r"TrainSpec\.position is missing: give it the position"):
        build_graph(model(position=lambda _: None))


def test_a_position_of_nothing_is_refused(build_graph):
    def build(task):
        weight = v1.get_variable("w", [])
        optimizer = v1.train.GradientDescentOptimizer(1.0)
        return TrainSpec(loss=weight, optimizer=optimizer, position=tf.zeros([3], tf.int64))

    with pytest.raises(UsageError, match="has made no dataset"):
        build_graph(build)


def test_two_datasets_are_refused(build_graph):
    def position(at):
        TaskContext().shards(10, batch_size=1, name="other")
        return at

    with pytest.raises(UsageError, match="the datasets 'train', 'other' in shards, expected one"):
        build_graph(model(position=position))
