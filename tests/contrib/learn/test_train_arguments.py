"""`contrib.learn.train`: its refusals and their order, and its information about the model."""

import inspect
import logging

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib import learn
from paramserve.contrib.learn import train

v1 = tf.compat.v1


def test_the_old_names_lead_to_the_same_functions():
    assert learn.graph_actions.train is learn.train is train
    assert learn.NanLossDuringTrainingError is v1.train.NanLossDuringTrainingError
    assert str(learn.NanLossDuringTrainingError()) == "NaN loss during training."
    assert all(hasattr(learn.graph_actions, name) for name in learn.graph_actions.__all__)
    assert all(hasattr(learn.monitors, name) for name in learn.monitors.__all__)


def test_signature_is_that_of_the_original():
    parameters = inspect.signature(train).parameters.values()
    assert " ".join(parameter.name for parameter in parameters) == (
        "graph output_dir train_op loss_op global_step_tensor init_op init_feed_dict init_fn "
        "log_every_steps supervisor_is_chief supervisor_master supervisor_save_model_secs "
        "keep_checkpoint_max supervisor_save_summaries_steps feed_fn steps fail_on_nan_loss "
        "monitors max_steps data_plane"
    )


@pytest.mark.original_api(
    "tf.contrib.learn.train raises ValueError: steps and max_steps",
    "tf.contrib.learn.train raises ValueError: output_dir",
    "tf.contrib.learn.train raises ValueError: train_op",
    "tf.contrib.learn.train raises ValueError: loss_op",
    "tf.contrib.learn.train raises ValueError: global_step_tensor",
)
def test_mistakes_are_named_one_after_the_other(graph, output_dir):
    """The graph is not touched before all of the arguments are there."""
    mistakes = [
        ("Can not provide both steps and max_steps", {"max_steps": None}),
        ("Output directory", {"output_dir": output_dir}),
        ("train_op", {"train_op": tf.no_op()}),
        ("loss_op", {"loss_op": tf.constant(1.0)}),
        ("graph", {"graph": graph}),
        ("global_step", None),
    ]
    arguments = dict.fromkeys(("graph", "output_dir", "train_op", "loss_op"))
    arguments |= {"steps": 1, "max_steps": 1}
    for message, remedy in mistakes:
        with pytest.raises(ValueError, match=message):
            train(**arguments)
        assert not graph.get_collection(v1.GraphKeys.SAVERS)
        arguments |= remedy or {}
    v1.train.get_or_create_global_step()
    arguments["train_op"] = v1.train.get_global_step().assign_add(1)
    assert train(**arguments) == 1.0


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_directory_is_refused(graph, counter, nothing):
    with pytest.raises(ValueError, match="Output directory"):
        train(graph, nothing, counter.train_op, counter.loss, steps=1)


@pytest.mark.parametrize("limit", ["steps", "max_steps"])
def test_negative_limits_are_refused(graph, output_dir, counter, limit):
    with pytest.raises(ValueError, match=rf"{limit}=-1 is negative"):
        train(graph, output_dir, counter.train_op, counter.loss, **{limit: -1})


def test_a_malformed_master_is_refused(graph, output_dir, counter):
    with pytest.raises(ValueError, match="localhost:2222"):
        train(
            graph,
            output_dir,
            counter.train_op,
            counter.loss,
            steps=1,
            supervisor_master="localhost:2222",
        )


@pytest.mark.original_api("tf.contrib.learn.train(graph)")
def test_the_graph_need_not_be_the_default_one_and_can_be_changed_afterwards(output_dir):
    with tf.Graph().as_default() as other:
        step = v1.train.get_or_create_global_step()
        train_op = step.assign_add(1)
        loss = tf.constant(2.0)
    assert train(other, output_dir, train_op, loss, steps=1) == 2.0
    assert not other.finalized
    assert not v1.get_default_graph().get_operations()


@pytest.mark.original_api("tf.contrib.learn.train(graph)")
def test_further_calls_on_a_graph_add_little_to_it(graph, output_dir, model):
    sizes = []
    for _ in range(3):
        train(graph, output_dir, model.train_op, model.loss, steps=1)
        sizes.append(len(graph.get_operations()))
    first, second, third = sizes
    assert third - second == second - first < 50
    assert v1.train.get_global_step() is model.step


@pytest.mark.original_api("tf.contrib.learn.train(loss_op)", "tf.contrib.learn.train returns")
@pytest.mark.parametrize("kind", ["variable", "name", "tensor", "new read"])
def test_a_loss_that_is_a_variable_is_that_after_the_step(
    variables, graph, output_dir, counter, kind
):
    loss = v1.get_variable(
        "loss", initializer=10.0, trainable=False, collections=[v1.GraphKeys.LOCAL_VARIABLES]
    )
    train_op = tf.group(counter.train_op, v1.assign_sub(loss, 1.0))
    given = {
        "variable": lambda: loss,
        "name": lambda: "loss:0",
        "tensor": loss.value,
        "new read": loss.read_value,
    }
    value = train(graph, output_dir, train_op, given[kind](), steps=6)
    assert value == 4.0
    assert isinstance(value, np.float32)


@pytest.mark.original_api("tf.contrib.learn.train(loss_op)")
@pytest.mark.parametrize("shape", [[2], None])
def test_a_loss_that_is_no_scalar_is_refused(graph, output_dir, counter, shape):
    loss = v1.placeholder_with_default([1.0, 2.0], shape)
    with pytest.raises(ValueError, match=r"shape \(2,\), expected a scalar"):
        train(graph, output_dir, counter.train_op, loss, steps=1)


@pytest.mark.original_api("tf.contrib.learn.train(train_op)")
@pytest.mark.parametrize("kind", [lambda op: op, lambda op: [op], lambda op: op.name])
def test_train_op_may_be_anything_that_a_session_runs(graph, output_dir, model, saved, kind):
    loss = train(graph, output_dir, kind(model.train_op), model.loss, steps=3)
    assert loss in (3.125, 0.78125)  # Before or after the step: nothing ties them.
    assert saved("weight") == 1.25


@pytest.mark.original_api("tf.contrib.learn.train(global_step_tensor)")
def test_the_global_step_may_be_any_integer_variable(graph, output_dir, saved):
    """It may also be none of the graph's own, which is not disturbed."""
    own = v1.train.get_or_create_global_step()
    mine = v1.get_variable("mine", initializer=0, trainable=False)
    train_op, loss = mine.assign_add(1), tf.constant(2.0)
    train(graph, output_dir, train_op, loss, global_step_tensor=mine, steps=3)
    train(graph, output_dir, train_op, loss, global_step_tensor=mine, steps=3)
    assert saved("mine") == 6
    assert saved() == 0
    assert tf.train.latest_checkpoint(output_dir).endswith("model.ckpt-6")
    assert v1.train.get_global_step() is own


@pytest.mark.original_api("tf.contrib.learn.train(global_step_tensor)")
def test_the_global_step_is_found_by_its_name(graph, output_dir):
    step = v1.get_variable("global_step", initializer=np.int64(0), trainable=False)
    assert not graph.get_collection(v1.GraphKeys.GLOBAL_STEP)
    assert train(graph, output_dir, step.assign_add(1), tf.constant(2.0), steps=1) == 2.0


@pytest.mark.original_api("tf.contrib.learn.train raises ValueError: global_step_tensor")
def test_two_global_steps_are_none(graph, output_dir, counter):
    graph.add_to_collection(v1.GraphKeys.GLOBAL_STEP, v1.get_variable("b", initializer=0))
    with pytest.raises(ValueError, match="the graph has 2 global_step"):
        train(graph, output_dir, counter.train_op, counter.loss, steps=1)


@pytest.mark.parametrize(
    ("initial", "message"),
    [(0.0, "does not have integer type"), ([0], "not scalar")],
)
def test_a_global_step_that_cannot_count_is_refused(graph, output_dir, counter, initial, message):
    step = v1.get_variable("bad", initializer=initial, trainable=False)
    with pytest.raises(TypeError, match=message):
        train(graph, output_dir, counter.train_op, counter.loss, global_step_tensor=step, steps=1)
    with pytest.raises(TypeError):
        train(graph, output_dir, counter.train_op, counter.loss, global_step_tensor=7, steps=1)


# Initialization


@pytest.mark.original_api(
    "tf.contrib.learn.train(init_op)",
    "tf.contrib.learn.train(init_feed_dict)",
    "tf.contrib.learn.train(init_fn)",
)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_fresh_start_initializes_and_a_checkpoint_is_only_restored(
    graph, output_dir, counter, saved, as_tensor
):
    start = v1.placeholder(tf.float32, [])
    weight = v1.get_variable("weight", initializer=start)
    local = v1.get_local_variable("local", initializer=7.0)
    init_op = v1.global_variables_initializer()
    if as_tensor:
        # The original asked a tensor for its truth, which it has not.
        with tf.control_dependencies([init_op]):
            init_op = tf.constant(0)
    seen = []

    def init_fn(session):
        # Comes after the init op, and before the local variables.
        assert isinstance(session, v1.Session)
        assert not session.run(v1_is_initialized)
        seen.append(session.run(weight))
        weight.load(seen[-1] + 1, session)

    v1_is_initialized = v1.is_variable_initialized(local)
    arguments = {"init_op": init_op, "init_feed_dict": {start: 5.0}, "init_fn": init_fn}
    loss = weight + local
    assert train(graph, output_dir, counter.train_op, loss, max_steps=2, **arguments) == 13.0
    assert train(graph, output_dir, counter.train_op, loss, max_steps=4, **arguments) == 13.0
    assert seen == [5.0]
    assert saved("weight") == 6.0


def test_what_nobody_initializes_is_an_error(graph, output_dir, counter):
    v1.get_variable("left", initializer=1.0)
    with pytest.raises(RuntimeError, match=r"Init operations did not make model ready.*left"):
        train(
            graph,
            output_dir,
            counter.train_op,
            counter.loss,
            init_op=counter.step.initializer,
            steps=1,
        )


# The log


def lines(caplog, start):
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith(start)]


@pytest.mark.original_api("tf.contrib.learn.train(log_every_steps)")
@pytest.mark.parametrize(
    ("every", "logged"),
    [(10, [10, 20, 25]), (4, [4, 8, 12, 16, 20, 24, 25]), (0, list(range(1, 26)))],
)
def test_loss_and_seconds_are_logged_every_so_often_and_last(
    graph, output_dir, counter, caplog, every, logged
):
    caplog.set_level(logging.INFO)
    train(graph, output_dir, counter.train_op, counter.loss, log_every_steps=every, max_steps=25)
    told = lines(caplog, "training step")
    assert [int(line.split()[2].strip(",")) for line in told] == logged
    assert "loss = 2.00000 (" in told[0]
    assert told[0].endswith("sec/batch).")
    assert lines(caplog, "Training steps") == ["Training steps [0,25)"]


def test_by_default_the_loss_is_printed_at_the_first_step_then_each_hundredth_and_last(
    graph, output_dir, counter, caplog
):
    caplog.set_level(logging.INFO)
    train(graph, output_dir, counter.train_op, counter.loss, monitors=[], max_steps=205)
    assert lines(caplog, "Step ") == [f"Step {step}: loss = 2.0" for step in (1, 101, 201, 205)]


def test_a_step_that_does_not_count_is_an_error_in_the_log(graph, output_dir, counter, caplog):
    runs = []

    def stop_after_three():
        runs.append(1)
        if len(runs) > 3:
            raise StopIteration

    train(graph, output_dir, tf.no_op(), counter.loss, max_steps=5, feed_fn=stop_after_three)
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 3
    assert "Global step was not incremented by train op at step 0" in errors[0].getMessage()
