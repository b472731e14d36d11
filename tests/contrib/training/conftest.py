"""A graph in each of TensorFlow's modes, and a session in which its queues run."""

import contextlib
import threading

import pytest
import tensorflow as tf

v1 = tf.compat.v1


@pytest.fixture(params=["resources", "references"])
def each_mode_graph(request):
    """Resource variables and control flow v2, or what `disable_v2_behavior` leaves of them."""
    with contextlib.ExitStack() as stack:
        if request.param == "references":
            v1.disable_control_flow_v2()
            stack.callback(v1.enable_control_flow_v2)
            v1.disable_resource_variables()
            stack.callback(v1.enable_resource_variables)
            v1.disable_v2_tensorshape()
            stack.callback(v1.enable_v2_tensorshape)
        graph = stack.enter_context(tf.Graph().as_default())
        v1.set_random_seed(7)
        yield graph


@pytest.fixture
def one_by_one():
    """Makes a tensor that is each of some values once, and then ends."""

    def make(values):
        dataset = tf.data.Dataset.from_tensor_slices(values)
        return v1.data.make_one_shot_iterator(dataset).get_next()

    return make


@pytest.fixture
def running():
    """Opens a session whose queue runners run, and which leaves no thread behind."""

    @contextlib.contextmanager
    def run():
        threads_before = set(threading.enumerate())
        with v1.Session() as session:
            session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
            coordinator = v1.train.Coordinator()
            runners = v1.get_collection(v1.GraphKeys.QUEUE_RUNNERS)
            threads = [
                thread
                for runner in runners
                for thread in runner.create_threads(session, coordinator, start=True)
            ]
            try:
                yield session
            finally:
                coordinator.request_stop()
                coordinator.join(threads, stop_grace_period_secs=20)
        assert set(threading.enumerate()) <= threads_before

    return run


@pytest.fixture
def take(running):
    """Evaluates tensors again and again: `steps` times, or until the input ends."""

    def take(fetches, steps=None):
        values = []
        with running() as session, contextlib.suppress(tf.errors.OutOfRangeError):
            while steps is None or len(values) < steps:
                values.append(session.run(fetches))
        return values

    return take
