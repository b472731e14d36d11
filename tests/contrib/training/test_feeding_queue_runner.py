"""`FeedingQueueRunner`: each thread feeds what its function returns."""

import itertools
import threading

import pytest
import tensorflow as tf

from paramserve.contrib.training.feeding_queue_runner import FeedingQueueRunner

v1 = tf.compat.v1


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture
def number(graph):
    return v1.placeholder(tf.int32, [])


@pytest.fixture
def queue(graph):
    return tf.queue.FIFOQueue(4, tf.int32, shapes=[[]])


def feeding(tensor, values):
    """A function that feeds each value once, and then ends as a queue would."""
    remaining = iter(values)

    def feed():
        try:
            return {tensor: next(remaining)}
        except StopIteration:
            raise tf.errors.OutOfRangeError(None, None, "no more values") from None

    return feed


def test_values_are_fed_in_order_until_they_end(queue, number, take):
    runner = FeedingQueueRunner(queue, [queue.enqueue(number)], feed_fns=[feeding(number, [3, 1])])
    v1.train.add_queue_runner(runner)
    # The elements of a queue can still be taken after it is closed.
    assert take(queue.dequeue()) == [3, 1]


def test_each_thread_has_its_own_function(queue, number, take):
    other = v1.placeholder(tf.int32, [])
    enqueue_ops = [queue.enqueue(number), queue.enqueue(other), queue.enqueue(tf.add(other, 100))]
    feed_fns = [feeding(number, range(20)), feeding(other, range(50, 52)), feeding(other, [0])]
    v1.train.add_queue_runner(FeedingQueueRunner(queue, enqueue_ops, feed_fns=feed_fns))
    # The queue is closed by the last thread, not by the first.
    assert sorted(take(queue.dequeue())) == [*range(20), 50, 51, 100]


def test_without_functions_nothing_is_fed(queue, one_by_one, take):
    enqueue = queue.enqueue(one_by_one([5, 6]))
    v1.train.add_queue_runner(FeedingQueueRunner(queue, [enqueue]))
    assert take(queue.dequeue()) == [5, 6]


def test_a_function_may_be_none_or_return_none(queue, one_by_one, take):
    enqueue = queue.enqueue(one_by_one(range(6)))
    runner = FeedingQueueRunner(queue, [enqueue, enqueue], feed_fns=[None, lambda: None])
    v1.train.add_queue_runner(runner)
    assert sorted(take(queue.dequeue())) == list(range(6))


def test_which_exceptions_end_the_input_can_be_chosen(queue, number, take):
    values = [2, 1]

    def feed():
        if not values:
            raise tf.errors.DataLossError(None, None, "truncated")
        return {number: values.pop()}

    types = (tf.errors.DataLossError, tf.errors.CancelledError)
    runner = FeedingQueueRunner(
        queue, [queue.enqueue(number)], feed_fns=[feed], queue_closed_exception_types=types
    )
    v1.train.add_queue_runner(runner)
    assert take(queue.dequeue()) == [1, 2]


def test_they_have_to_be_errors_of_tensorflow(queue):
    with pytest.raises(TypeError):
        FeedingQueueRunner(queue, [queue.enqueue(1)], queue_closed_exception_types=(KeyError,))


def test_by_default_they_are_those_of_a_queue(queue):
    runner = FeedingQueueRunner(queue, [queue.enqueue(1)])
    assert runner.queue_closed_exception_types == (
        tf.errors.OutOfRangeError,
        tf.errors.CancelledError,
    )
    assert runner.name == queue.name


def test_a_full_queue_does_not_keep_its_thread(queue, number, running):
    runner = FeedingQueueRunner(
        queue, [queue.enqueue(number)] * 2, feed_fns=[feeding(number, itertools.count())] * 2
    )
    v1.train.add_queue_runner(runner)
    # `running` checks that no thread is left, though no element is taken.
    with running() as session:
        while session.run(queue.size()) < 4:
            pass


def test_errors_stop_the_coordinator(queue, number, running):
    def feed():
        raise KeyError("no such file")

    runner = FeedingQueueRunner(queue, [queue.enqueue(number)], feed_fns=[feed])
    v1.train.add_queue_runner(runner)
    with pytest.raises(KeyError, match="no such file"), running() as session:
        session.run(queue.dequeue(), options=v1.RunOptions(timeout_in_ms=60_000))


def test_without_a_coordinator_errors_are_collected(queue, number):
    runner = FeedingQueueRunner(
        queue, [queue.enqueue(number)] * 2, feed_fns=[lambda: 1 / 0, feeding(number, [])]
    )
    with v1.Session() as session:
        threads = runner.create_threads(session, start=True)
        for thread in threads:
            thread.join()
    assert len(threads) == 2
    assert [type(error) for error in runner.exceptions_raised] == [ZeroDivisionError]


def test_a_session_has_its_threads_once(queue, number):
    # One thread feeds, one waits for the coordinator to stop.
    runner = FeedingQueueRunner(queue, [queue.enqueue(number)], feed_fns=[feeding(number, [1, 2])])
    with v1.Session() as session, v1.Session() as other:
        coordinator = v1.train.Coordinator()
        threads = runner.create_threads(session, coordinator, daemon=True)
        assert [(thread.daemon, thread.is_alive()) for thread in threads] == [(True, False)] * 2
        assert runner.create_threads(session, coordinator) == []
        assert len(runner.create_threads(other)) == 1
        for thread in threads:
            thread.start()
        assert [session.run(queue.dequeue()) for _ in range(2)] == [1, 2]
        coordinator.request_stop()
        coordinator.join(threads)
        # When they have ended, there may be new ones.
        assert len(runner.create_threads(session)) == 1


def test_own_ops_close_and_cancel(queue, number, running):
    count = v1.get_variable("closed", initializer=0, use_resource=True)
    close, cancel = count.assign_add(1).op, count.assign_add(10).op
    runner = FeedingQueueRunner(
        queue, [queue.enqueue(number)], close, cancel, [feeding(number, [1])]
    )
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        coordinator = v1.train.Coordinator()
        feeder, canceller = runner.create_threads(session, coordinator, start=True)
        feeder.join()
        assert session.run(count.read_value()) == 1
        coordinator.request_stop()
        canceller.join()
        assert session.run(count.read_value()) == 11


def test_there_is_a_function_for_each_op(queue, number):
    with pytest.raises(ValueError, match="feed_fns has 2 entries, and enqueue_ops 1"):
        FeedingQueueRunner(queue, [queue.enqueue(number)], feed_fns=[None, None])
    with pytest.raises(ValueError, match="feed_fns has 0 entries, and enqueue_ops 1"):
        FeedingQueueRunner(queue, [queue.enqueue(number)], feed_fns=[])


def test_there_is_a_queue_and_an_op(queue):
    with pytest.raises(ValueError, match="queue and enqueue_ops"):
        FeedingQueueRunner(queue)
    with pytest.raises(ValueError, match="queue and enqueue_ops"):
        FeedingQueueRunner(enqueue_ops=[queue.enqueue(1)])


def test_functions_have_no_protocol_buffer(queue, number):
    runner = FeedingQueueRunner(queue, [queue.enqueue(number)], feed_fns=[feeding(number, [])])
    with pytest.raises(NotImplementedError, match="FeedingQueueRunner has no protocol buffer"):
        runner.to_proto()
    with pytest.raises(NotImplementedError, match="cannot come from a protocol buffer"):
        FeedingQueueRunner.from_proto(None)


def test_training_feeds_and_saves(queue, number, tmp_path):
    step = v1.train.get_or_create_global_step()
    runner = FeedingQueueRunner(queue, [queue.enqueue(number)], feed_fns=[feeding(number, [2, 3])])
    v1.train.add_queue_runner(runner)
    step_by = step.assign_add(tf.cast(queue.dequeue(), tf.int64))
    with v1.train.MonitoredTrainingSession(checkpoint_dir=str(tmp_path)) as session:
        while not session.should_stop():
            session.run(step_by)
    assert tf.train.load_variable(tf.train.latest_checkpoint(tmp_path), "global_step") == 5
    assert not [each for each in threading.enumerate() if each.name.startswith("FeedingQueue")]


def test_there_has_to_be_a_graph():
    queue = tf.queue.FIFOQueue(4, tf.int32, shapes=[[]])
    with pytest.raises(RuntimeError, match="eager"):
        FeedingQueueRunner(queue, [None])
