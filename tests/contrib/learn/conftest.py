"""Fixtures of the tests of `contrib.learn`: a graph, a directory, and its contents."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture(params=["resource", "ref"])
def variables(request, graph):
    """Variables as TensorFlow 2 makes them, and as they are with its behaviour disabled."""
    v1.get_variable_scope().set_use_resource(request.param == "resource")
    return request.param


@pytest.fixture
def output_dir(tmp_path):
    return str(tmp_path / "model")


@pytest.fixture
def model():
    """A weight that goes from 10 to 0: each step takes the learning rate's part of it away."""
    step = v1.train.get_or_create_global_step()
    rate = v1.placeholder_with_default(0.5, [])
    weight = v1.get_variable("weight", initializer=10.0)
    loss = tf.divide(tf.square(weight), 2, name="loss")
    optimizer = v1.train.GradientDescentOptimizer(rate)
    train_op = optimizer.minimize(loss, global_step=step)
    return SimpleNamespace(step=step, rate=rate, weight=weight, loss=loss, train_op=train_op)


@pytest.fixture
def counter():
    """The smallest model: a step that does nothing but count, and a loss of 2."""
    step = v1.train.get_or_create_global_step()
    return SimpleNamespace(
        step=step, train_op=tf.group(v1.assign_add(step, 1)), loss=tf.constant(2.0)
    )


@pytest.fixture
def saved(output_dir):
    """Gives the value of a variable in the newest checkpoint; None if there is no checkpoint."""

    def saved(name="global_step"):
        checkpoint = tf.train.latest_checkpoint(output_dir)
        return None if checkpoint is None else tf.train.load_variable(checkpoint, name)

    return saved


@pytest.fixture
def events(output_dir):
    """Gives the events that were written."""

    def events():
        files = sorted(Path(output_dir).glob("events.out.tfevents.*"))
        return [event for file in files for event in v1.train.summary_iterator(str(file))]

    return events


@pytest.fixture
def summaries(events):
    """Gives the summaries that were written, as (step, tag, value)."""

    def summaries():
        return [
            (event.step, value.tag, value.simple_value)
            for event in events()
            for value in event.summary.value
        ]

    return summaries
