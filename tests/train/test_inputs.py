"""Queue-based input: producers, batches, queue runners and the coordinator of their threads."""

import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1


@contextmanager
def running():
    """A session with queue runners."""
    coordinator = train.Coordinator()
    with v1.Session() as session:
        session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
        threads = train.start_queue_runners(session, coordinator)
        try:
            yield session
        finally:
            coordinator.request_stop()
            session.close()
            coordinator.join(threads, ignore_live_threads=True)


def drain(fetches):
    """All values until the input ends."""
    values = []
    with running() as session, suppress(tf.errors.OutOfRangeError):
        while True:
            values.append(session.run(fetches))
    return values


def lists(values):
    return [np.asarray(value).tolist() for value in values]


# Producers


@pytest.mark.original_api("tf.train.match_filenames_once", "tf.train.string_input_producer")
@pytest.mark.parametrize("use_resource", [True, False])
def test_files_that_match_are_produced_in_order(tmp_path, use_resource):
    for name in ("b.txt", "a.txt", "c.bin"):
        (tmp_path / name).write_text(name)
    with v1.variable_scope("", use_resource=use_resource):
        names = train.match_filenames_once(str(tmp_path / "*.txt"))
    assert names in v1.local_variables()
    queue = train.string_input_producer(names, num_epochs=1, shuffle=False)
    expected = [str(tmp_path / name).encode() for name in ("a.txt", "b.txt")]
    assert drain(queue.dequeue()) == expected


@pytest.mark.original_api("tf.train.string_input_producer")
def test_strings_are_shuffled_in_each_epoch():
    queue = train.string_input_producer(["a", "b", "c", "d"], num_epochs=3, seed=1)
    values = drain(queue.dequeue())
    epochs = [values[:4], values[4:8], values[8:]]
    assert all(sorted(epoch) == [b"a", b"b", b"c", b"d"] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.original_api("tf.train.string_input_producer")
def test_an_empty_list_of_strings_is_refused():
    with pytest.raises(ValueError, match="non-null input tensor"):
        train.string_input_producer([])


@pytest.mark.original_api("tf.train.input_producer", "tf.train.range_input_producer")
def test_rows_and_ranges_are_produced():
    rows = train.input_producer([[1, 2], [3, 4]], num_epochs=2, shuffle=False).dequeue()
    assert lists(drain(rows)) == [[1, 2], [3, 4], [1, 2], [3, 4]]
    with tf.Graph().as_default():
        numbers = train.range_input_producer(3, num_epochs=2, shuffle=False).dequeue()
        assert drain(numbers) == [0, 1, 2, 0, 1, 2]


@pytest.mark.original_api("tf.train.slice_input_producer")
def test_slices_of_several_tensors_stay_together():
    slices = train.slice_input_producer([[1, 2, 3], ["a", "b", "c"]], num_epochs=1, seed=2)
    assert sorted(tuple(pair) for pair in drain(slices)) == [(1, b"a"), (2, b"b"), (3, b"c")]


@pytest.mark.original_api("tf.train.limit_epochs")
def test_a_tensor_is_given_a_number_of_times():
    assert drain(train.limit_epochs(tf.constant([1, 2]), num_epochs=3))[2].tolist() == [1, 2]
    with pytest.raises(ValueError, match="num_epochs"):
        train.limit_epochs(tf.constant(1), num_epochs=0)


# Batches


def numbers(limit=5):
    return train.range_input_producer(limit, num_epochs=1, shuffle=False).dequeue()


@pytest.mark.original_api("tf.train.batch")
def test_batches_of_all_but_the_incomplete_one():
    assert lists(drain(train.batch([numbers()], 2))) == [[0, 1], [2, 3]]


@pytest.mark.original_api("tf.train.batch")
def test_the_last_batch_may_be_smaller():
    batches = train.batch({"n": numbers()}, 2, allow_smaller_final_batch=True)
    assert lists(batch["n"] for batch in drain(batches)) == [[0, 1], [2, 3], [4]]


@pytest.mark.original_api("tf.train.batch")
def test_a_batch_pads_what_differs_in_length():
    batches = train.batch([tf.range(numbers(4))], 2, dynamic_pad=True)
    assert lists(drain(batches)) == [[[0], [0]], [[0, 1, 0], [0, 1, 2]]]


@pytest.mark.original_api("tf.train.batch_join")
def test_batches_of_two_sources():
    sources = [[tf.constant(1)], [tf.constant(2)]]
    batch = train.batch_join(sources, 6)
    with running() as session:
        seen = {value for _ in range(5) for value in session.run(batch).tolist()}
    assert seen <= {1, 2}
    assert seen


@pytest.mark.original_api("tf.train.maybe_batch", "tf.train.maybe_batch_join")
@pytest.mark.parametrize("join", [False, True])
def test_batches_of_what_is_to_be_kept(join):
    number = numbers(8)
    keep = tf.equal(number % 2, 0)
    if join:
        batches = train.maybe_batch_join([[number]], keep, 2)
    else:
        batches = train.maybe_batch([number], keep, 2)
    assert lists(drain(batches)) == [[0, 2], [4, 6]]


def is_shuffled(batches, kept):
    values = [value for batch in drain(batches) for value in batch.tolist()]
    return sorted(values) == kept and values != kept


@pytest.mark.original_api("tf.train.shuffle_batch", "tf.train.shuffle_batch_join")
@pytest.mark.parametrize("join", [False, True])
def test_shuffled_batches(join):
    number, arguments = numbers(20), {"capacity": 30, "min_after_dequeue": 15, "seed": 3}
    if join:
        batches = train.shuffle_batch_join([[number]], 4, **arguments)
    else:
        batches = train.shuffle_batch([number], 4, **arguments)
    assert is_shuffled(batches, list(range(20)))


@pytest.mark.original_api("tf.train.maybe_shuffle_batch", "tf.train.maybe_shuffle_batch_join")
@pytest.mark.parametrize("join", [False, True])
def test_shuffled_batches_of_what_is_to_be_kept(join):
    number, arguments = numbers(40), {"capacity": 30, "min_after_dequeue": 15, "seed": 3}
    keep = tf.equal(number % 2, 0)
    if join:
        batches = train.maybe_shuffle_batch_join([[number]], 4, keep_input=keep, **arguments)
    else:
        batches = train.maybe_shuffle_batch([number], 4, keep_input=keep, **arguments)
    assert is_shuffled(batches, list(range(0, 40, 2)))


# Queue runners and threads


@pytest.mark.original_api(
    "tf.train.QueueRunner", "tf.train.add_queue_runner", "tf.train.start_queue_runners"
)
def test_a_queue_runner_fills_its_queue_from_a_thread(graph):
    queue = tf.queue.FIFOQueue(10, [tf.int32], shapes=[[]])
    count = v1.get_local_variable("count", initializer=0)
    runner = train.QueueRunner(queue, [queue.enqueue(count.assign_add(1))])
    train.add_queue_runner(runner)
    assert graph.get_collection(v1.GraphKeys.QUEUE_RUNNERS) == [runner]
    value = queue.dequeue()
    with running() as session:
        assert [session.run(value) for _ in range(20)] == list(range(1, 21))
    assert runner.name == queue.name


@pytest.mark.original_api("tf.train.QueueRunner", "tf.train.Coordinator")
def test_an_error_of_a_queue_runner_reaches_the_join():
    queue = tf.queue.FIFOQueue(10, [tf.int32])
    checked = tf.cast(tf.debugging.check_numerics(tf.constant(float("nan")), "bad"), tf.int32)
    coordinator = train.Coordinator()
    with v1.Session() as session:
        runner = train.QueueRunner(queue, [queue.enqueue(checked)])
        threads = runner.create_threads(session, coordinator, start=True)
        with pytest.raises(tf.errors.InvalidArgumentError, match="bad"):
            coordinator.join(threads)


@pytest.mark.original_api("tf.train.Coordinator")
def test_a_coordinator_stops_threads_and_raises_their_first_error():
    coordinator = train.Coordinator()
    ended = []

    def work():
        with coordinator.stop_on_exception():
            coordinator.wait_for_stop()
            ended.append(True)

    def fail():
        with coordinator.stop_on_exception():
            raise KeyError("a bug")

    threads = [threading.Thread(target=target) for target in (work, work, fail)]
    for thread in threads:
        thread.start()
    with pytest.raises(KeyError, match="a bug"):
        coordinator.join(threads)
    assert ended == [True, True]
    assert coordinator.should_stop()
    assert coordinator.joined
    coordinator.clear_stop()
    assert not coordinator.should_stop()


@pytest.mark.original_api("tf.train.Coordinator")
def test_a_thread_that_does_not_stop_is_an_error():
    coordinator = train.Coordinator()
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    coordinator.request_stop()
    with pytest.raises(RuntimeError, match="threads still running"):
        coordinator.join([thread], stop_grace_period_secs=0.01)
    end.set()
    thread.join()


@pytest.mark.original_api("tf.train.LooperThread")
def test_a_looper_calls_until_it_is_stopped():
    coordinator = train.Coordinator()
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            coordinator.request_stop()

    looper = train.LooperThread.loop(coordinator, 0.001, call, args=("a", 1))
    coordinator.join([looper])
    assert calls == [("a", 1)] * 3


@pytest.mark.original_api("tf.train.LooperThread")
def test_a_looper_of_a_class_of_its_own_begins_and_ends_once():
    calls = []

    class Looper(train.LooperThread):
        def start_loop(self):
            calls.append("start")

        def run_loop(self):
            calls.append("run")
            time.sleep(0.001)

        def stop_loop(self):
            calls.append("stop")

    coordinator = train.Coordinator()
    looper = Looper(coordinator, None)
    looper.start()
    while "run" not in calls:
        time.sleep(0.001)
    coordinator.request_stop()
    coordinator.join([looper])
    assert calls[0] == "start"
    assert calls[-1] == "stop"
    assert set(calls[1:-1]) == {"run"}
