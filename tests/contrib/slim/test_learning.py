"""`contrib.slim.learning`: the training loop without masks, and the op that makes a step."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib import slim
from paramserve.contrib.slim import learning

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(7)
        yield graph


@pytest.fixture
def logdir(tmp_path):
    return str(tmp_path / "model")


def logistic_loss():
    labels = np.random.default_rng(1).integers(0, 2, 16)
    # Feature 2 * label, or the one after it, is set: either tells the label.
    features = np.eye(4)[2 * labels + np.random.default_rng(2).integers(0, 2, 16)]
    kernel = v1.get_variable("kernel", [4, 1])
    logits = features.astype(np.float32) @ kernel + v1.get_variable("bias", initializer=[0.0])
    truth = labels[:, None].astype(np.float32)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=truth, logits=logits))


def descend(loss, **arguments):
    return learning.create_train_op(loss, v1.train.GradientDescentOptimizer(1.0), **arguments)


# The loop


def test_signatures_are_those_of_the_original():
    names = """train_op logdir train_step_fn train_step_kwargs log_every_n_steps graph master
        is_chief global_step number_of_steps init_op init_feed_dict local_init_op init_fn ready_op
        summary_op save_summaries_secs summary_writer startup_delay_steps saver save_interval_secs
        sync_optimizer session_config session_wrapper trace_every_n_steps ignore_live_threads
        data_plane"""
    assert list(inspect.signature(slim.learning.train).parameters) == names.split()
    names = """total_loss optimizer global_step update_ops variables_to_train clip_gradient_norm
        summarize_gradients gate_gradients aggregation_method colocate_gradients_with_ops
        gradient_multipliers check_numerics"""
    assert list(inspect.signature(learning.create_train_op).parameters) == names.split()
    assert set(learning.__all__) >= {"train", "train_step", "create_train_op"}


@pytest.mark.parametrize(("update_ops", "updates"), [(None, 5), ([], 0)])
def test_update_ops_run_with_each_step_unless_others_are_given(update_ops, updates):
    seen = v1.get_variable("seen", initializer=0, trainable=False)
    v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, seen.assign_add(1))
    train_op = descend(logistic_loss(), update_ops=update_ops)
    made = []

    def step(session, *arguments):
        result = learning.train_step(session, *arguments)
        made.append(session.run(seen))
        return result

    learning.train(train_op, None, train_step_fn=step, number_of_steps=5)
    assert made[-1] == updates


def test_a_classifier_learns_and_goes_on(logdir):
    train_op = descend(logistic_loss())
    first = learning.train(train_op, logdir, number_of_steps=1)
    assert first > 0.5
    assert learning.train(train_op, logdir, number_of_steps=300, log_every_n_steps=100) < 0.015
    assert learning.train(train_op, logdir, number_of_steps=300) is None
    assert tf.train.load_variable(logdir, "global_step") == 300


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_op": None}, "train_op cannot be None"),
        ({"logdir": None, "summary_op": None}, "summary_op=None because logdir=None"),
        ({"logdir": None, "trace_every_n_steps": 1}, "trace_every_n_steps=1 because logdir=None"),
        ({"sync_optimizer": [], "startup_delay_steps": 1}, "startup_delay_steps must be zero"),
        ({"number_of_steps": 0}, "positive number"),
        ({"sync_optimizer": 3}, r"must be a tf\.train\.SyncReplicasOptimizer"),
    ],
)
def test_what_cannot_be_is_refused(logdir, wrong, message):
    arguments = {"train_op": tf.constant(1.0), "logdir": logdir, **wrong}
    with pytest.raises(ValueError, match=message):
        learning.train(**arguments)


def test_the_session_may_be_wrapped(logdir):
    class Recorder:
        def __init__(self, session):
            self.session = session
            self.runs = []

        def run(self, fetches, **arguments):
            self.runs.append(fetches)
            return self.session.run(fetches, **arguments)

    recorders = []

    def wrap(session):
        recorders.append(Recorder(session))
        return recorders[-1]

    train_op = descend(logistic_loss())
    learning.train(
        train_op, logdir, number_of_steps=3, session_wrapper=wrap, ignore_live_threads=True
    )
    [recorder] = recorders
    # The steps went through the hooks, or it would not have ended; each took a look afterwards.
    assert [fetches is train_op for fetches in recorder.runs] == [True, False] * 3
    assert tf.train.load_variable(logdir, "global_step") == 3


# The train op


def test_the_loss_is_from_before_the_step_and_counted(logdir):
    weight = v1.get_variable("weight", initializer=3.0)
    train_op = descend(tf.square(weight) / 2)
    assert [op for op in v1.get_collection(v1.GraphKeys.TRAIN_OP) if op is train_op] == [train_op]
    assert learning.train(train_op, logdir, number_of_steps=1) == 4.5
    assert tf.train.load_variable(logdir, "weight") == 0


def test_gradients_are_multiplied_then_clipped(logdir):
    slopes = {"plain": 0.5, "multiplied": 0.5, "by_name": 0.5, "clipped": 50.0}
    weights = {name: v1.get_variable(name, initializer=0.0) for name in slopes}
    loss = tf.add_n([slope * weights[name] for name, slope in slopes.items()])
    multipliers = {weights["multiplied"]: 4.0, "by_name": 100.0}
    train_op = descend(loss, gradient_multipliers=multipliers, clip_gradient_norm=3.0)
    learning.train(train_op, logdir, number_of_steps=1)
    moved = {name: -tf.train.load_variable(logdir, name) for name in slopes}
    assert moved == pytest.approx({"plain": 0.5, "multiplied": 2, "by_name": 3, "clipped": 3})


@pytest.mark.parametrize("nothing", [None, {}])
def test_by_default_gradients_are_as_they_are(logdir, nothing):
    weight = v1.get_variable("weight", initializer=0.0)
    train_op = descend(1000 * weight, gradient_multipliers=nothing)
    learning.train(train_op, logdir, number_of_steps=1)
    assert tf.train.load_variable(logdir, "weight") == -1000


def test_gradients_are_summarized_as_they_are_applied(logdir):
    weight = v1.get_variable("weight", initializer=0.0)
    train_op = descend(1000 * weight, clip_gradient_norm=2.0, summarize_gradients=True)
    learning.train(train_op, logdir, number_of_steps=1)
    [file] = Path(logdir).glob("events.out.tfevents.*")
    values = {
        value.tag: value.simple_value
        for event in v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert values["summarize_grads/weight/gradient_norm"] == 2
    assert "summarize_grads/weight/gradient" in values


def test_update_ops_run_first_and_some_variables_may_be_left_alone(logdir):
    moving = v1.get_variable("moving", initializer=0.0, trainable=False)
    left = v1.get_variable("left", initializer=1.0)
    trained = v1.get_variable("trained", initializer=1.0)
    update = moving.assign_add(1.0, read_value=False)
    train_op = descend(left + trained, update_ops=[update], variables_to_train=[trained])
    learning.train(train_op, logdir, number_of_steps=2)
    final = {name: tf.train.load_variable(logdir, name) for name in ("moving", "left", "trained")}
    assert final == {"moving": 2, "left": 1, "trained": -1}


def test_a_loss_that_is_no_number_ends_training_unless_it_is_not_checked(logdir):
    loss = v1.get_variable("weight", initializer=np.nan)
    with pytest.raises(tf.errors.InvalidArgumentError, match="LossTensor is inf or nan"):
        learning.train(descend(loss), logdir, number_of_steps=1)
    unchecked = descend(loss, check_numerics=False)
    assert np.isnan(learning.train(unchecked, None, number_of_steps=1))


def test_without_a_step_counter_a_step_function_has_to_end_it():
    weight = v1.get_variable("weight", initializer=5.0)
    train_op = descend(tf.square(weight) / 2, global_step=None)

    def step_function(session, train_op, global_step, kwargs):
        loss, _ = learning.train_step(session, train_op, global_step, kwargs)
        return loss, loss == 0

    assert learning.train(train_op, None, step_function) == 0
