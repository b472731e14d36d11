"""`contrib.learn.train`: NaN, errors, lost sessions."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.learn import NanLossDuringTrainingError, train
from paramserve.contrib.learn.monitors import BaseMonitor, CheckpointSaver

v1 = tf.compat.v1

NAN_TASK = Path(__file__).with_name("nan_task.py")


class Failing(BaseMonitor):
    """Raises in one step, and shows the arguments of its calls afterwards."""

    def __init__(self, error=None, at_step=3, where="step_end"):
        super().__init__()
        self._errors = {(where, at_step): error} if error else {}
        self.after = []

    def _raise(self, *place):
        if place in self._errors:
            raise self._errors.pop(place)

    def step_begin(self, step):
        super().step_begin(step)
        self._raise("step_begin", step)
        return []

    def step_end(self, step, output):
        super().step_end(step, output)
        self._raise("step_end", step)
        return False

    def post_step(self, step, session):
        self.after.append(("post_step", step))

    def end(self, session=None):
        super().end(session=session)
        self.after.append(("end", session is not None))


# NaN


@pytest.fixture
def diverging(counter):
    """A loss that is 2 for three steps, and NaN from the fourth on."""
    with tf.control_dependencies([counter.train_op]):
        step = counter.step.read_value()
    counter.loss = tf.where(step > 3, np.nan, 2.0)
    return counter


@pytest.mark.original_api(
    "tf.contrib.learn.train(fail_on_nan_loss)",
    "tf.contrib.learn.train raises NanLossDuringTrainingError: fail_on_nan_loss",
)
def test_nan_is_an_error_and_its_model_is_saved_but_not_given_out(
    graph, output_dir, diverging, saved, caplog
):
    monitors = [Failing(), CheckpointSaver(output_dir, save_steps=2)]
    with pytest.raises(NanLossDuringTrainingError, match=r"^NaN loss during training\.$"):
        train(graph, output_dir, diverging.train_op, diverging.loss, monitors=monitors, max_steps=9)
    assert "Model diverged with loss = NaN." in caplog.text
    assert tf.io.gfile.exists(f"{output_dir}/model.ckpt-4.index")
    assert saved() == 3
    # Neither has the failed step been followed up, nor were monitors given the session.
    assert monitors[0].after == [("post_step", step) for step in (1, 2, 3)] + [("end", False)]


@pytest.mark.original_api(
    "tf.contrib.learn.train(fail_on_nan_loss)", "tf.contrib.learn.train returns"
)
def test_nan_may_be_tolerated(graph, output_dir, diverging, saved, caplog):
    loss = train(
        graph, output_dir, diverging.train_op, diverging.loss, fail_on_nan_loss=False, max_steps=6
    )
    assert np.isnan(loss)
    assert saved() == 6
    told = [r.levelname for r in caplog.records if r.getMessage().startswith("Model diverged")]
    assert told == ["WARNING"] * 3


def test_infinity_is_not_nan(graph, output_dir, counter):
    assert train(graph, output_dir, counter.train_op, tf.constant(np.inf), steps=2) == np.inf


@pytest.mark.original_api(
    "tf.contrib.learn.train(fail_on_nan_loss)",
    "tf.contrib.learn.train raises NanLossDuringTrainingError: exit code 1",
)
def test_a_program_whose_loss_becomes_nan_ends_with_exit_code_1(output_dir):
    run = subprocess.run(
        [sys.executable, str(NAN_TASK), output_dir], capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 1
    assert "NanLossDuringTrainingError: NaN loss during training." in run.stderr
    assert "after training" not in run.stdout


# Errors


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["step_begin", "step_end"])
def test_an_error_is_raised_again_once_the_model_is_saved(
    graph, output_dir, counter, saved, error, where
):
    failing, other = Failing(error, where=where), Failing()
    with pytest.raises(type(error)):
        train(
            graph,
            output_dir,
            counter.train_op,
            counter.loss,
            monitors=[failing, other],
            max_steps=9,
        )
    assert saved() == (2 if where == "step_begin" else 3)
    assert failing.after[-1] == other.after[-1] == ("end", True)
    # The next call continues from there, with the same monitors.
    train(graph, output_dir, counter.train_op, counter.loss, monitors=[failing], max_steps=9)
    assert saved() == 9


def test_a_step_that_fails_is_followed_by_post_step_but_not_step_end(graph, output_dir, counter):
    with tf.control_dependencies([counter.train_op]):
        bad = tf.debugging.assert_less(counter.step.read_value(), np.int64(3), message="too far")
    monitor = Failing()
    with pytest.raises(tf.errors.InvalidArgumentError, match="too far"):
        train(graph, output_dir, bad, counter.loss, monitors=[monitor], max_steps=9)
    assert monitor.after == [("post_step", step) for step in (1, 2, 3)] + [("end", True)]


def test_errors_of_monitors_at_the_end_come_out_and_none_is_skipped(
    graph, output_dir, counter, saved
):
    class BadEnd(BaseMonitor):
        def end(self, session=None):
            super().end(session=session)
            raise ValueError("at the end")

    class EmptyEnd(BaseMonitor):
        def end(self, session=None):
            super().end(session=session)
            raise tf.errors.OutOfRangeError(None, None, "empty")

    last = Failing()
    train(graph, output_dir, counter.train_op, counter.loss, monitors=[EmptyEnd()], max_steps=1)
    with pytest.raises(ValueError, match="at the end"):
        train(
            graph,
            output_dir,
            counter.train_op,
            counter.loss,
            monitors=[BadEnd(), last],
            max_steps=2,
        )
    assert last.after[-1] == ("end", True)
    assert saved() == 2


def test_the_first_of_two_errors_comes_out(graph, output_dir, counter, caplog):
    class BadEnd(Failing):
        def end(self, session=None):
            raise ValueError("second")

    with pytest.raises(RuntimeError, match="first"):
        train(
            graph,
            output_dir,
            counter.train_op,
            counter.loss,
            monitors=[BadEnd(RuntimeError("first"))],
            max_steps=9,
        )
    assert "second" in caplog.text


def test_monitors_end_if_training_cannot_begin(graph, output_dir, counter):
    monitor = Failing()
    arguments = {"monitors": [monitor], "max_steps": 1}
    with pytest.raises(RuntimeError, match="did not make model ready"):
        train(graph, output_dir, counter.train_op, counter.loss, init_op=tf.no_op(), **arguments)
    assert monitor.after == [("end", False)]
    assert train(graph, output_dir, counter.train_op, counter.loss, **arguments) == 2.0


def test_a_broken_queue_runner_is_an_error_but_the_model_is_saved(
    graph, output_dir, counter, saved
):
    """The original did not save it then."""
    queue = tf.queue.FIFOQueue(100, [tf.float32])
    fail = tf.debugging.Assert(False, ["no more"])
    with tf.control_dependencies([fail]):
        enqueue = queue.enqueue(1.0)
    v1.train.add_queue_runner(v1.train.QueueRunner(queue, [enqueue]))
    with tf.control_dependencies([counter.train_op]):
        loss = queue.dequeue()
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.CancelledError)):
        train(graph, output_dir, counter.train_op, loss, max_steps=100)
    assert saved() is not None


# Lost sessions


@pytest.mark.parametrize(
    "error", [tf.errors.AbortedError, tf.errors.UnavailableError], ids=lambda e: e.__name__
)
@pytest.mark.parametrize("limit", [{"steps": 8}, {"max_steps": 12}])
def test_a_lost_session_is_replaced_and_the_limit_stays(
    graph, output_dir, counter, saved, error, limit
):
    """The original ended with an error, since it changed the finalized graph."""
    train(graph, output_dir, counter.train_op, counter.loss, steps=4)
    monitor = Failing(error(None, None, "the server is gone"), at_step=7, where="step_begin")
    fed = []
    loss = train(
        graph,
        output_dir,
        counter.train_op,
        counter.loss,
        feed_fn=lambda: fed.append(len(fed)),
        monitors=[monitor],
        **limit,
    )
    assert loss == 2.0
    assert saved() == 12
    # Back at the checkpoint of the start, step 4; the monitor has not ended in between.
    steps = [value for name, value in monitor.after if name == "post_step"]
    assert steps == [5, 6, *range(5, 13)]
    assert monitor.after[-1] == ("end", True)
    assert len(fed) == len(steps)
