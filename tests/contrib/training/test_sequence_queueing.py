"""Sequences in batches of pieces, and states that are carried from piece to piece."""

import contextlib
import threading

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.training.sequence_queueing import (
    NextQueuedSequenceBatch,
    SequenceQueueingStateSaver,
    batch_sequences_with_states,
)

v1 = tf.compat.v1

FIRST_INDEX = -(2**63)
# Long enough for a race to show.
SHORTLY = v1.RunOptions(timeout_in_ms=300)


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(7)
        yield graph


def counting(length, *, total=None, key=None, **options):
    """Sequences 10, 11, 12, ... of `length` steps, whose state is meant to be the sum so far."""
    length = tf.cast(length, tf.int32)
    arguments = {
        "input_key": tf.strings.as_string(length) if key is None else key,
        "input_sequences": {"x": tf.range(length) + 10},
        "input_context": {"length": length},
        "input_length": length if total is None else total,
        "initial_states": {"sum": tf.constant(0)},
        "num_unroll": 2,
        "batch_size": 2,
    }
    return arguments | options


def add_up(batch):
    """The op that saves the sum up to the end of the piece."""
    return batch.save_state("sum", batch.state("sum") + tf.reduce_sum(batch.sequences["x"], 1))


class Driver:
    """A state saver that is driven by hand, example by example."""

    def __init__(self, session, **options):
        self.length = v1.placeholder(tf.int32, [])
        self.key = v1.placeholder_with_default(tf.strings.as_string(self.length), [])
        self.saver = SequenceQueueingStateSaver(**counting(self.length, key=self.key, **options))
        self.batch = self.saver.next_batch
        self.save = add_up(self.batch) if self.saver.example.states else tf.no_op()
        self.session = session

    def put(self, *lengths, key=None, options=None):
        for length in lengths:
            feed = {self.length: length} | ({} if key is None else {self.key: key})
            self.session.run(self.saver.prefetch_op, feed, options)

    def step(self, save=True):
        fetches = [self.batch.key, self.save if save else tf.no_op()]
        return [key.decode() for key in self.session.run(fetches, options=SHORTLY)[0]]


@pytest.fixture
def drive(graph):
    with contextlib.ExitStack() as stack:

        def make(**options):
            session = stack.enter_context(v1.Session())
            return Driver(session, **options)

        yield make


# The contents of a batch


def test_a_sequence_comes_piece_by_piece(each_mode_graph, one_by_one, take):
    arguments = counting(one_by_one([3]), num_unroll=2, batch_size=1, name="reader")
    batch = batch_sequences_with_states(**arguments)
    assert isinstance(batch, NextQueuedSequenceBatch)
    assert batch.key.op.name.startswith("reader/")
    fetches = {
        "key": batch.key,
        "next_key": batch.next_key,
        "sequence": batch.sequence,
        "sequence_count": batch.sequence_count,
        "length": batch.length,
        "total_length": batch.total_length,
        "insertion_index": batch.insertion_index,
        "batch_size": batch.batch_size,
        "context": batch.context["length"],
        "x": batch.sequences["x"],
        "state": batch.state("sum"),
    }
    first, second = (
        {k: v.tolist() for k, v in each.items()} for each, _ in take([fetches, add_up(batch)])
    )
    assert first == {
        "key": [b"00000_of_00002:3"],
        "next_key": [b"00001_of_00002:3"],
        "sequence": [0],
        "sequence_count": [2],
        "length": [2],
        "total_length": [3],
        "insertion_index": [FIRST_INDEX],
        "batch_size": 1,
        "context": [3],
        "x": [[10, 11]],
        "state": [0],
    }
    assert second == first | {
        "key": [b"00001_of_00002:3"],
        "next_key": [b"STOP:3"],
        "sequence": [1],
        "length": [1],
        "x": [[12, 0]],
        "state": [21],
    }


def test_types_and_shapes_are_those_of_the_input(graph):
    saver = SequenceQueueingStateSaver(
        batch_size=3,
        num_unroll=4,
        input_length=8,
        input_key="key",
        input_sequences={"a": tf.zeros([8, 5]), "b": tf.fill([8], "text")},
        input_context={"c": tf.zeros([2, 2], tf.int64)},
        initial_states={"s": tf.zeros([6], tf.float64)},
    )
    batch = saver.next_batch
    assert saver.next_batch is batch
    assert saver.prefetch_op is saver.prefetch_op
    assert saver.num_unroll == 4
    assert saver.batch_size == 3
    expected = {
        batch.sequences["a"].ref(): (tf.float32, [3, 4, 5]),
        batch.sequences["b"].ref(): (tf.string, [3, 4]),
        batch.context["c"].ref(): (tf.int64, [3, 2, 2]),
        batch.state("s").ref(): (tf.float64, [3, 6]),
        batch.key.ref(): (tf.string, [3]),
        batch.next_key.ref(): (tf.string, [3]),
        batch.insertion_index.ref(): (tf.int64, [3]),
        batch.batch_size.ref(): (tf.int32, []),
    }
    for name in ("length", "total_length", "sequence", "sequence_count"):
        expected[getattr(batch, name).ref()] = (tf.int32, [3])
    for tensor, (dtype, shape) in expected.items():
        assert (tensor.deref().dtype, tensor.deref().shape.as_list()) == (dtype, shape)


def test_batches_that_may_be_small_have_no_static_size(graph):
    batch = batch_sequences_with_states(**counting(4))
    assert batch.sequences["x"].shape.as_list() == [None, 2]
    assert batch.state("sum").shape.as_list() == [None]


def test_sequences_of_different_length_share_batches(each_mode_graph, one_by_one, take):
    lengths = [1, 6, 3, 4, 2, 5]
    arguments = counting(one_by_one(lengths), num_threads=1, capacity=2, batch_size=2)
    batch = batch_sequences_with_states(**arguments)
    sums = {}
    for (keys, totals, states, x), _ in take(
        [[batch.key, batch.total_length, batch.state("sum"), batch.sequences["x"]], add_up(batch)]
    ):
        assert len(keys) <= 2
        for key, total, state, piece in zip(keys, totals, states, x, strict=True):
            index, _, rest = key.decode().partition("_of_")
            count, _, name = rest.partition(":")
            assert (int(count), int(name)) == (-(-total // 2), total)
            # The state is the one saved with the previous piece.
            assert state == sum(range(10, 10 + 2 * int(index)))
            sums[int(name)] = state + piece.sum()
    assert sums == {length: sum(range(10, 10 + length)) for length in lengths}


def test_many_threads_bring_each_sequence_once(graph, one_by_one, take):
    arguments = counting(one_by_one(np.arange(1, 40)), num_threads=5, batch_size=4, capacity=6)
    batch = batch_sequences_with_states(**arguments)
    steps = take([batch.key, batch.insertion_index, add_up(batch)])
    keys = np.concatenate([keys for keys, _, _ in steps])
    expected = [
        b"%05d_of_%05d:%d" % (i, -(-n // 2), n) for n in range(1, 40) for i in range(-(-n // 2))
    ]
    assert sorted(keys) == sorted(expected)
    # All pieces of a sequence have its index, and each sequence has its own.
    indices = np.concatenate([indices for _, indices, _ in steps])
    names = [key.partition(b":")[2] for key in keys]
    assert len(set(zip(names, indices, strict=True))) == len(set(indices)) == 39


def test_sparse_sequences_have_sparse_pieces(each_mode_graph, one_by_one, take):
    length = one_by_one([3, 4])
    dense = tf.reshape(tf.range(2 * length), [length, 2]) % 4
    arguments = counting(length, batch_size=2, num_threads=1)
    arguments["input_sequences"]["sparse"] = tf.sparse.from_dense(dense)
    batch = batch_sequences_with_states(**arguments)
    steps = take([batch.sequences["sparse"], add_up(batch)])
    # The first pieces are [[0, 1], [2, 3]] both, the others that and [[0, 1], [0, 0]].
    assert [(sparse.indices.tolist(), sparse.values.tolist()) for sparse, _ in steps] == [
        (
            [[0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1]],
            [1, 2, 3, 1, 2, 3],
        ),
        ([[0, 0, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1]], [1, 1, 2, 3]),
    ]
    assert [sparse.dense_shape.tolist() for sparse, _ in steps] == [[2, 2, 2], [2, 2, 2]]


def test_sparse_sequences_keep_their_rank(each_mode_graph):
    arguments = counting(4, num_unroll=2)
    arguments["input_sequences"] = {
        "sparse": tf.sparse.from_dense(tf.ones([4, 3, 5])),
        "unknown": v1.sparse_placeholder(tf.float32),
    }
    batch = batch_sequences_with_states(**arguments)
    assert batch.sequences["sparse"].shape.as_list() == [None, None, None, None]
    assert batch.sequences["unknown"].shape.rank is None


def test_sparse_sequences_are_padded_to_the_length_of_dense_ones(each_mode_graph, one_by_one, take):
    """Sequences of a parsed example know only their last step with a value."""
    length = one_by_one([3])
    arguments = counting(length, batch_size=1)
    short = tf.SparseTensor([[0, 1]], tf.reshape(length, [1]), [1, 2])
    empty = tf.SparseTensor(tf.zeros([0, 2], tf.int64), tf.zeros([0]), [0, 2])
    arguments["input_sequences"] |= {"short": short, "empty": empty}
    batch = batch_sequences_with_states(**arguments | {"input_length": None})
    steps = take([batch.sequences, batch.total_length, add_up(batch)])
    assert [total.tolist() for _, total, _ in steps] == [[3], [3]]
    for sequences, _, _ in steps:
        assert sequences["short"].dense_shape.tolist() == [1, 2, 2]
        assert sequences["empty"].dense_shape.tolist() == [1, 2, 2]
    assert [each[0]["short"].indices.tolist() for each in steps] == [[[0, 0, 1]], []]


def test_without_dense_sequences_the_longest_sparse_one_counts(graph, take):
    value = v1.SparseTensorValue([[0], [4]], [1.0, 2.0], [5])
    sequences = {"a": value, "b": v1.SparseTensorValue([[1]], [3.0], [2])}
    arguments = counting(5, batch_size=1, num_threads=1, capacity=1)
    arguments |= {"input_sequences": sequences, "input_length": None, "initial_states": {}}
    batch = batch_sequences_with_states(**arguments)
    (total, pieces) = take([batch.total_length, batch.sequences["b"]], steps=1)[0]
    assert (total.tolist(), pieces.dense_shape.tolist()) == ([5], [1, 2])


def test_a_value_beyond_the_dense_length_is_a_mistake(graph, one_by_one, running):
    arguments = counting(one_by_one([2]), batch_size=1, num_threads=1)
    arguments["input_sequences"]["late"] = tf.SparseTensor([[2, 0]], [1.0], [3, 1])
    batch = batch_sequences_with_states(**arguments)
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match=r"late.* has a value at step"),
        running() as session,
    ):
        session.run(batch.key)


def test_states_are_dense(graph):
    states = {"sum": v1.SparseTensorValue([[0]], [1], [2])}
    with pytest.raises(TypeError, match=r"initial_states\['sum'\] is sparse"):
        SequenceQueueingStateSaver(**counting(4, initial_states=states))


def test_a_sparse_context_comes_with_each_piece(each_mode_graph, one_by_one, take):
    length = one_by_one([4, 3])
    arguments = counting(length, batch_size=2, num_threads=1)
    arguments["input_context"] = {
        "tags": tf.SparseTensor([[1]], tf.reshape(length, [1]), [10]),
        "plain": length,
    }
    batch = batch_sequences_with_states(**arguments)
    assert batch.context["tags"].shape.as_list() == [None, None]
    steps = take([batch.context, add_up(batch)])
    for context, _ in steps:
        assert context["tags"].indices.tolist() == [[0, 1], [1, 1]]
        assert context["tags"].values.tolist() == context["plain"].tolist() == [4, 3]
        assert context["tags"].dense_shape.tolist() == [2, 10]
    assert len(steps) == 2


def test_a_sparse_context_may_end_in_a_smaller_batch(graph, one_by_one, take):
    length = one_by_one([4, 2])
    arguments = counting(length, batch_size=2, num_threads=1)
    tags = tf.SparseTensor([[0]], tf.reshape(length, [1]), [1])
    arguments["input_context"] = {"tags": tags, "same": v1.SparseTensorValue([[0]], [9], [1])}
    batch = batch_sequences_with_states(**arguments)
    steps = take([batch.context["tags"], batch.context["same"], add_up(batch)])
    assert [tags.values.tolist() for tags, *_ in steps] == [[4, 2], [4]]
    assert [same.values.tolist() for _, same, _ in steps] == [[9, 9], [9]]


def test_padding_is_zero_or_empty(graph, one_by_one, take):
    length = one_by_one([1])
    sequences = {
        "text": tf.fill([length], "a"),
        "flags": tf.fill([length, 2], True),
        "floats": tf.ones([length]),
    }
    arguments = counting(length, batch_size=1, num_unroll=3) | {"input_sequences": sequences}
    batch = batch_sequences_with_states(**arguments)
    (values,) = take(batch.sequences)
    assert values["text"].tolist() == [[b"a", b"", b""]]
    assert values["flags"].tolist() == [[[True, True], [False, False], [False, False]]]
    assert values["floats"].tolist() == [[1, 0, 0]]


def test_length_may_be_less_than_the_steps(graph, one_by_one, take):
    steps = one_by_one([6])
    batch = batch_sequences_with_states(**counting(steps, total=3, batch_size=1))
    lengths = take([batch.length, batch.total_length, add_up(batch)])
    assert [(length[0], total[0]) for length, total, _ in lengths] == [(2, 3), (1, 3), (0, 3)]


def test_length_is_inferred_from_what_is_padded(graph, one_by_one, take):
    arguments = counting(one_by_one([5]), batch_size=1, num_unroll=3) | {"input_length": None}
    batch = batch_sequences_with_states(**arguments)
    lengths = take([batch.length, batch.total_length, add_up(batch)])
    assert [(length[0], total[0]) for length, total, _ in lengths] == [(3, 5), (2, 5)]


# Order and waiting


def test_a_piece_waits_for_its_state(drive):
    driver = drive(batch_size=1)
    driver.put(4)
    assert driver.step(save=False) == ["00000_of_00002:4"]
    with pytest.raises(tf.errors.DeadlineExceededError):
        driver.step()


def test_a_piece_waits_for_all_states(drive):
    states = {"sum": tf.constant(0), "vector": tf.zeros([3])}
    driver = drive(batch_size=1, initial_states=states)
    driver.put(4)
    save_both = [driver.save, driver.batch.save_state("vector", driver.batch.state("vector") + 1)]
    driver.session.run(save_both)
    vector = driver.session.run([driver.batch.state("vector"), driver.save])[0]
    assert vector.tolist() == [[1, 1, 1]]
    driver.put(6)
    assert driver.step() == ["00000_of_00003:6"]
    with pytest.raises(tf.errors.DeadlineExceededError):
        driver.step()


def test_without_states_nothing_waits(drive):
    driver = drive(batch_size=2, initial_states={})
    driver.put(6)
    assert driver.step() == ["00000_of_00003:6", "00001_of_00003:6"]


def test_what_has_begun_goes_on_first(drive):
    driver = drive(batch_size=1)
    driver.put(4)
    driver.put(2)
    assert driver.step() == ["00000_of_00002:4"]
    driver.put(6)
    assert [driver.step() for _ in range(3)] == [
        ["00001_of_00002:4"],
        ["00000_of_00001:2"],
        ["00000_of_00003:6"],
    ]


def test_a_batch_waits_until_it_is_full(drive):
    driver = drive(batch_size=2)
    driver.put(2)
    with pytest.raises(tf.errors.DeadlineExceededError):
        driver.step()


def test_batch_size_may_be_a_tensor(drive):
    size = v1.placeholder_with_default(1, [])
    driver = drive(batch_size=size)
    driver.put(2, 4, 6)
    assert driver.step() == ["00000_of_00001:2"]
    keys = driver.session.run(driver.batch.key, {size: 2})
    assert keys.tolist() == [b"00000_of_00002:4", b"00000_of_00003:6"]


def test_capacity_counts_examples_until_their_last_piece(drive):
    driver = drive(batch_size=1, capacity=2)
    driver.put(4, 2)
    assert driver.step() == ["00000_of_00002:4"]
    with pytest.raises(tf.errors.DeadlineExceededError):
        driver.put(6, options=SHORTLY)
    assert driver.step() == ["00001_of_00002:4"]
    driver.put(6, options=SHORTLY)
    with pytest.raises(tf.errors.DeadlineExceededError):
        driver.put(8, options=SHORTLY)


def test_examples_without_steps_are_skipped(drive):
    driver = drive(batch_size=1, capacity=1)
    driver.put(0, 0, 2, options=SHORTLY)
    assert driver.step() == ["00000_of_00001:2"]


def test_keys_have_to_be_unique(drive):
    driver = drive(batch_size=1)
    driver.put(4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="already has a value"):
        driver.put(4)


def test_keys_may_come_again_when_their_example_is_gone(graph, one_by_one, take):
    arguments = counting(one_by_one([2, 4] * 4), batch_size=1, capacity=1, num_threads=2)
    batch = batch_sequences_with_states(**arguments)
    assert len(take([batch.key, add_up(batch)])) == 12


def test_keys_can_be_made_unique(graph, one_by_one, take):
    arguments = counting(
        one_by_one([4] * 5), batch_size=5, make_keys_unique=True, make_keys_unique_seed=3
    )
    batch = batch_sequences_with_states(**arguments)
    for keys, _ in take([batch.key, add_up(batch)]):
        assert len({*keys}) == 5
        assert {key.decode().split(":")[1] for key in keys} == {"4"}


# The end


def test_batches_get_smaller_at_the_end(each_mode_graph, one_by_one, take):
    batch = batch_sequences_with_states(
        **counting(one_by_one([2, 4, 8]), batch_size=3, num_threads=1)
    )
    steps = take([batch.batch_size, add_up(batch)])
    assert [size for size, _ in steps] == [3, 2, 1, 1]


def test_or_the_rest_is_dropped(graph, one_by_one, take):
    arguments = counting(one_by_one([2, 2, 2]), key=tf.constant("k"), allow_small_batch=False)
    batch = batch_sequences_with_states(**arguments, make_keys_unique=True)
    assert batch.sequences["x"].shape == [2, 2]
    assert len(take([batch.key, add_up(batch)])) == 1


def test_what_has_begun_goes_on_after_closing(drive):
    driver = drive(batch_size=1, allow_small_batch=True, capacity=3)
    driver.put(4)
    assert driver.step() == ["00000_of_00002:4"]
    driver.session.run(driver.saver.close())
    with pytest.raises(tf.errors.CancelledError):
        driver.put(2)
    assert driver.step() == ["00001_of_00002:4"]
    with pytest.raises(tf.errors.OutOfRangeError):
        driver.step()


def test_but_not_after_cancelling(drive):
    driver = drive(batch_size=1, allow_small_batch=True)
    driver.put(4)
    driver.session.run(driver.saver.close(cancel_pending_enqueues=True))
    with pytest.raises(tf.errors.CancelledError):
        driver.step()


@pytest.mark.parametrize("capacity", [None, 3])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_closing_twice_is_an_error_and_no_standstill(drive, capacity, first, second):
    driver = drive(batch_size=1, capacity=capacity)
    driver.put(2)
    driver.step()
    closes = [driver.saver.close(cancel) for cancel in (first, second)]
    driver.session.run(closes[0], options=SHORTLY)
    with pytest.raises(tf.errors.CancelledError):
        driver.session.run(closes[1], options=SHORTLY)


def test_stopping_early_leaves_no_thread(graph, one_by_one, running):
    arguments = counting(one_by_one(range(1, 100)), capacity=4)
    batch = batch_sequences_with_states(**arguments)
    with running() as session:
        session.run([batch.key, add_up(batch)])


def test_a_monitored_session_trains_to_the_end(graph, one_by_one, tmp_path):
    batch = batch_sequences_with_states(**counting(one_by_one([3, 4, 5])))
    weight = v1.get_variable("weight", initializer=0.0)
    error = weight - tf.reduce_mean(tf.cast(batch.total_length, tf.float32))
    step = v1.train.get_or_create_global_step()
    train = v1.train.GradientDescentOptimizer(0.1).minimize(error**2, step)
    save = add_up(batch)
    saved = []
    with v1.train.MonitoredTrainingSession(checkpoint_dir=str(tmp_path)) as session:
        while not session.should_stop():
            saved.append(session.run([weight, train, save])[0])
    # Pieces: 2 + 2 + 3 of them, in batches of at most 2.
    assert len(saved) >= 4
    assert saved[-1] > saved[0]


def test_how_much_is_ready_is_summarized(graph, drive):
    batch_sequences_with_states(**counting(4), name="reader")
    with v1.Session() as session:
        summary = v1.Summary.FromString(session.run(v1.summary.merge_all()))
    assert [(value.tag, value.simple_value) for value in summary.value] == [
        ("reader/ready_pieces", 0)
    ]
    driver = drive(batch_size=1)
    driver.put(6, 2)
    barrier = driver.saver.barrier
    sizes = [barrier.ready_size(), barrier.incomplete_size()]
    assert driver.session.run(sizes) == [2, 2]
    assert barrier.barrier_ref.dtype.base_dtype == tf.string
    assert barrier.name.startswith(driver.saver.name + "/")


def test_ops_need_neither_the_graph_of_the_thread_nor_an_open_one(drive):
    driver = drive(batch_size=1)
    saver, made = driver.saver, []

    def make():
        batch = saver.next_batch
        made.append(batch.save_state("sum", batch.state("sum")))
        made.extend([saver.close(), saver.barrier.ready_size(), saver.barrier.incomplete_size()])

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert [each.graph for each in made] == [driver.session.graph] * 4
    driver.session.graph.finalize()
    batch = saver.next_batch
    assert saver.prefetch_op.graph is driver.session.graph
    assert batch.batch_size.shape == batch.sequence.shape[1:] == []
    assert set(batch.context) == {"length"}
    assert set(batch.sequences) == {"x"}


# Mistakes that the values show


@pytest.mark.parametrize("argument", ["input_length", "input_key", "batch_size"])
def test_scalars_of_unknown_shape_are_checked_when_they_run(graph, argument):
    value = v1.placeholder(tf.string if argument == "input_key" else tf.int32)
    saver = SequenceQueueingStateSaver(**counting(4, **{argument: value}))
    scalar = b"4" if argument == "input_key" else 4
    with v1.Session() as session:
        session.run(saver.prefetch_op, {value: scalar})
        if argument != "batch_size":
            with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
                session.run(saver.prefetch_op, {value: [scalar]})
        else:
            assert len(session.run(saver.next_batch.key, {value: 1})) == 1
            with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
                session.run(saver.next_batch.key, {value: [1]})


@pytest.mark.parametrize("is_known", [True, False])
def test_lengths_have_to_be_multiples(graph, running, is_known):
    length = 5 if is_known else v1.placeholder_with_default(5, [])
    batch = batch_sequences_with_states(**counting(length, num_unroll=3), pad=False)
    message = "should be a multiple of: 3, but saw value: 5. Consider setting pad=True"
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match=message),
        running() as session,
    ):
        session.run(batch.key)


@pytest.mark.parametrize("pad", [True, False])
def test_sequences_have_to_have_the_same_length(graph, one_by_one, running, pad):
    arguments = counting(one_by_one([4, 4]), pad=pad, num_threads=1)
    arguments["input_sequences"]["y"] = tf.zeros([one_by_one([3, 3])])
    batch = batch_sequences_with_states(**arguments)
    message = r"must have the same length, but .*'y.*3.*4"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message), running() as session:
        session.run(batch.key)


@pytest.mark.parametrize("total", [-1, 5])
def test_length_is_at_most_the_steps(graph, running, total):
    batch = batch_sequences_with_states(**counting(4, total=total))
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="input_length must be from 0 to"),
        running() as session,
    ):
        session.run(batch.key)


@pytest.mark.parametrize("wrong", [0, [0], [[0, 0]], [0, 0, 0]])
def test_states_of_unknown_shape_are_checked_also_after_last_pieces(drive, wrong):
    driver = drive(batch_size=2)
    state = v1.placeholder(tf.int32)
    save = driver.batch.save_state("sum", state)
    driver.put(2)
    driver.put(2, key="another")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"not compatible|as many as"):
        driver.session.run(save, {state: wrong})


# Mistakes that the graph shows


@pytest.mark.parametrize("make", [SequenceQueueingStateSaver, batch_sequences_with_states])
@pytest.mark.parametrize(
    ("argument", "value", "error", "message"),
    [
        ("input_length", np.int64(4), TypeError, "input_length has dtype int64: expected int32"),
        ("input_length", 4.0, TypeError, "input_length has dtype float32"),
        ("input_length", [4], ValueError, r"input_length has the shape \(1,\): it must be a scala"),
        ("input_key", 5, TypeError, "input_key has dtype int32: expected string"),
        ("input_key", ["a"], ValueError, r"input_key has the shape \(1,\): it must be a scalar"),
        ("input_sequences", [1, 2], TypeError, "input_sequences is a list: expected a dict"),
        ("input_context", [1, 2], TypeError, "input_context is a list: expected a dict"),
        ("initial_states", None, TypeError, "initial_states is a NoneType: expected a dict"),
        ("input_sequences", {1: [1, 2]}, TypeError, "key 1: expected strings as keys"),
        ("input_context", {b"c": 1}, TypeError, "key b'c': expected strings as keys"),
        ("initial_states", {None: 1}, TypeError, "key None: expected strings as keys"),
        ("input_sequences", {"a:b": [1, 2]}, ValueError, "key 'a:b': a key must not contain ':'"),
        ("input_context", {"a:": 1}, ValueError, "must not contain ':'"),
        ("initial_states", {":a": 1}, ValueError, "must not contain ':'"),
        ("input_sequences", {}, ValueError, "input_sequences is empty"),
        ("input_sequences", {"x": 5}, ValueError, "expected the number of steps as first"),
        ("num_unroll", 2.0, TypeError, "num_unroll=2.0: expected an int"),
        ("num_unroll", 0, ValueError, "num_unroll=0: expected at least 1"),
        ("batch_size", 2.0, TypeError, "batch_size has dtype float32: expected int32"),
        ("batch_size", [2], ValueError, r"batch_size has the shape \(1,\)"),
        ("capacity", 1, ValueError, "capacity 1 needs to be >= batch_size 2"),
        ("capacity", 0, ValueError, "capacity=0: expected at least 1"),
        ("capacity", 3.0, TypeError, "capacity=3.0: expected an int"),
    ],
)
def test_mistakes_are_named(graph, make, argument, value, error, message):
    with pytest.raises(error, match=message):
        make(**counting(4, **{argument: value}))


@pytest.mark.parametrize(
    ("argument", "shape", "message"),
    [
        ("input_sequences", [None, None], r"input_sequences\['v'\] .* must be fully defined"),
        ("input_sequences", None, "expected the number of steps as first dimension"),
        ("input_context", [None], r"input_context\['v'\] .* must be fully defined"),
        ("initial_states", [None], r"initial_states\['v'\] .* must be fully defined"),
    ],
)
def test_shapes_have_to_be_known(graph, argument, shape, message):
    with pytest.raises(ValueError, match=message):
        SequenceQueueingStateSaver(
            **counting(4, **{argument: {"v": v1.placeholder(tf.int32, shape)}})
        )


def test_a_batch_size_that_is_a_tensor_fits_into_the_capacity(graph):
    arguments = counting(4, batch_size=tf.constant(2), capacity=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="capacity 1 needs to be >= batch"):
        SequenceQueueingStateSaver(**arguments)


def test_lengths_that_are_known_are_compared_at_once(graph):
    sequences = {"x": tf.zeros([4]), "y": tf.zeros([3])}
    with pytest.raises(ValueError, match=r"the same length, but have .*'x': 4, 'y': 3"):
        SequenceQueueingStateSaver(**counting(4, input_sequences=sequences))


def test_length_is_needed_without_padding(graph):
    with pytest.raises(ValueError, match="input_length is None: it must be given if pad=False"):
        batch_sequences_with_states(**counting(4) | {"input_length": None, "pad": False})


def test_states_have_to_be_declared(graph):
    batch = SequenceQueueingStateSaver(**counting(4)).next_batch
    with pytest.raises(KeyError, match=r"state was not declared: 'other'.*\['sum'\]"):
        batch.state("other")
    with pytest.raises(KeyError, match="state was not declared: 'other'"):
        batch.save_state("other", batch.state("sum"))


def test_states_keep_their_shape_and_type(graph):
    batch = SequenceQueueingStateSaver(**counting(4)).next_batch
    with pytest.raises(ValueError, match=r"the state 'sum' has the shape \(2, 3\): expected"):
        batch.save_state("sum", tf.zeros([2, 3], tf.int32))
    with pytest.raises(ValueError, match="requested dtype int32"):
        batch.save_state("sum", tf.zeros([2]))
    assert batch.save_state("sum", [5, 6], name="mine").name.startswith("mine/")


def test_there_has_to_be_a_graph():
    for make in (SequenceQueueingStateSaver, batch_sequences_with_states):
        with pytest.raises(RuntimeError, match=rf"{make.__name__}\(\) makes queues"):
            make(**counting(4))
