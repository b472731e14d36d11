"""Hooks: their fetches, the times of their actions, and the cost of a step."""

import json
import logging
import time

import numpy as np
import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1


@pytest.fixture
def step_op():
    return train.get_or_create_global_step().assign_add(1)


def run(fetches, *hooks, steps=5):
    with train.MonitoredSession(hooks=hooks) as session:
        for _ in range(steps):
            if session.should_stop():
                break
            session.run(fetches)


@pytest.fixture
def logged(caplog):
    """Lines of TensorFlow's log."""
    caplog.set_level(logging.INFO, "tensorflow")
    return caplog


# CheckpointSaverHook


class CountRuns(train.SessionRunHook):
    """Counts the calls of the session."""

    def after_create_session(self, session, coord):
        self.count = 0
        run = session.run

        def counting_run(*args, **kwargs):
            self.count += 1
            return run(*args, **kwargs)

        session.run = counting_run


@pytest.mark.original_api("tf.train.CheckpointSaverHook")
def test_a_step_without_a_checkpoint_is_one_call(step_op, tmp_path, events):
    def runs(hook):
        counter = CountRuns()
        # The counter comes last, so that the first checkpoint is not counted.
        run(step_op, hook, counter, steps=40)
        return counter.count

    ours = runs(train.CheckpointSaverHook(str(tmp_path / "ours"), save_steps=10))
    theirs = runs(v1.train.CheckpointSaverHook(str(tmp_path / "theirs"), save_steps=10))
    saved = [event.step for event in events(tmp_path / "ours") if event.session_log.status == 3]
    assert saved == [0, 10, 20, 30, 40]
    # 40 steps, and besides: the first, 2 for each save, a look too early now and then, the end.
    assert ours <= 60
    assert theirs >= 2 * 40


@pytest.mark.original_api("tf.train.CheckpointSaverHook")
@pytest.mark.parametrize("use_resource", [True, False])
def test_steps_that_count_many_are_saved_in_time(tmp_path, events, use_resource):
    with v1.variable_scope("", use_resource=use_resource):
        step = train.get_or_create_global_step()
    hook = train.CheckpointSaverHook(str(tmp_path), save_steps=20)
    run(step.assign_add(10), hook, steps=8)
    saved = [event.step for event in events(tmp_path) if event.session_log.status == 3]
    assert saved == [0, 20, 40, 60, 80]


class Listener(train.CheckpointSaverListener):
    def __init__(self, stop_at=None):
        self.calls = []
        self.stop_at = stop_at

    def begin(self):
        self.calls.append("begin")

    def before_save(self, session, global_step_value):
        self.calls.append(("before", int(global_step_value)))

    def after_save(self, session, global_step_value):
        self.calls.append(("after", int(global_step_value)))
        return global_step_value == self.stop_at

    def end(self, session, global_step_value):
        self.calls.append(("end", int(global_step_value)))


@pytest.mark.original_api("tf.train.CheckpointSaverListener", "tf.train.CheckpointSaverHook")
@pytest.mark.parametrize("as_list", [True, False])
def test_listeners_hear_of_each_save_and_may_stop(step_op, tmp_path, as_list):
    listener = Listener(stop_at=4)
    listeners = [listener] if as_list else listener
    run(
        step_op,
        train.CheckpointSaverHook(str(tmp_path), save_steps=2, listeners=listeners),
        steps=9,
    )
    saves = [(when, step) for step in (0, 2, 4) for when in ("before", "after")]
    assert listener.calls == ["begin", *saves, ("end", 4)]


@pytest.mark.original_api("tf.train.CheckpointSaverHook")
def test_checkpoints_have_the_name_and_saver_that_was_asked_for(step_op, tmp_path):
    hook = train.CheckpointSaverHook(
        str(tmp_path), save_secs=1000, saver=train.Saver(), checkpoint_basename="best"
    )
    run(step_op, hook)
    assert train.latest_checkpoint(tmp_path).endswith("best-5")
    with pytest.raises(ValueError, match="both saver and scaffold"):
        train.CheckpointSaverHook(
            str(tmp_path), save_steps=1, saver=train.Saver(), scaffold=train.Scaffold()
        )
    with pytest.raises(ValueError, match="every_secs"):
        train.CheckpointSaverHook(str(tmp_path))


# Logging and summaries


@pytest.mark.original_api("tf.train.LoggingTensorHook")
@pytest.mark.parametrize("use_resource", [True, False])
def test_values_are_logged_also_of_variables_given_by_name(step_op, logged, use_resource):
    v1.get_variable("weight", initializer=2.5, use_resource=use_resource)
    tf.constant(7.0, name="seven")
    run(step_op, train.LoggingTensorHook(["weight:0", "seven:0"], every_n_iter=2))
    lines = [line for line in logged.messages if "weight" in line]
    assert len(lines) == 3
    assert all(line.startswith("weight:0 = 2.5, seven:0 = 7.0") for line in lines)


@pytest.mark.original_api("tf.train.LoggingTensorHook")
def test_values_are_logged_at_the_end_and_in_a_format_of_ones_own(step_op, logged):
    tensors = {"s": train.get_global_step()}
    hook = train.LoggingTensorHook(tensors, at_end=True, formatter=lambda v: f"step is {v['s']}")
    run(step_op, hook)
    assert "step is 5" in logged.messages
    for arguments in ({}, {"every_n_iter": 1, "every_n_secs": 1}, {"every_n_iter": 0}):
        with pytest.raises(ValueError, match="every_n_iter"):
            train.LoggingTensorHook(tensors, **arguments)


@pytest.mark.original_api("tf.train.StepCounterHook")
def test_the_speed_is_logged_and_written(step_op, tmp_path, summaries, logged):
    run(step_op, train.StepCounterHook(every_n_steps=2, output_dir=str(tmp_path)), steps=7)
    v1.summary.FileWriterCache.get(str(tmp_path)).flush()
    assert list(summaries(tmp_path)) == ["global_step/sec"]
    assert any(line.startswith("global_step/sec: ") for line in logged.messages)
    with pytest.raises(ValueError, match="exactly one"):
        train.StepCounterHook(every_n_steps=1, every_n_secs=1)


@pytest.mark.original_api("tf.train.SummarySaverHook")
def test_summaries_are_written_every_so_many_steps(step_op, tmp_path, summaries):
    hook = train.SummarySaverHook(
        save_steps=3, output_dir=str(tmp_path), summary_op=v1.summary.scalar("x", 1.0)
    )
    run(step_op, hook, steps=7)
    assert summaries(tmp_path)["x"] == [1, pytest.approx(4, abs=1), pytest.approx(7, abs=1)]
    with pytest.raises(ValueError, match="scaffold or summary_op"):
        train.SummarySaverHook(save_steps=1)


@pytest.mark.original_api("tf.train.ProfilerHook")
def test_timelines_are_written(step_op, tmp_path):
    run(step_op, train.ProfilerHook(save_steps=3, output_dir=str(tmp_path)), steps=7)
    files = sorted(tmp_path.glob("timeline-*.json"))
    assert files
    assert json.loads(files[0].read_text())["traceEvents"]


# Stopping, waiting, checking


@pytest.mark.original_api("tf.train.StopAtStepHook")
@pytest.mark.parametrize(("arguments", "end"), [({"last_step": 5}, 5), ({"num_steps": 3}, 5)])
def test_training_stops_at_a_step(step_op, arguments, end, logdir):
    creator = train.ChiefSessionCreator(
        train.Scaffold(init_op=train.get_global_step().assign(2).op)
    )
    with train.MonitoredSession(creator, [train.StopAtStepHook(**arguments)]) as session:
        while not session.should_stop():
            last = session.run(step_op)
    assert last == end
    for wrong in ({}, {"last_step": 1, "num_steps": 1}):
        with pytest.raises(ValueError, match="num_steps"):
            train.StopAtStepHook(**wrong)


@pytest.mark.original_api("tf.train.NanTensorHook", "tf.train.NanLossDuringTrainingError")
def test_a_loss_that_is_no_number_stops_training(step_op):
    loss = tf.where(step_op < 3, 1.0, float("nan"))
    with pytest.raises(train.NanLossDuringTrainingError, match="NaN loss during training"):
        run(loss, train.NanTensorHook(loss))
    assert issubclass(train.NanLossDuringTrainingError, RuntimeError)
    hook = train.NanTensorHook(loss, fail_on_nan_loss=False)
    with train.MonitoredSession(hooks=[hook]) as session:
        values = []
        while not session.should_stop():
            values.append(session.run(loss))
    np.testing.assert_array_equal(values, [1.0, 1.0, np.nan])


@pytest.mark.original_api("tf.train.FeedFnHook")
def test_a_function_feeds_each_step():
    number = v1.placeholder(tf.float32, [])
    values = iter([1.0, 2.0])
    double = 2 * number
    hook = train.FeedFnHook(lambda: {number: next(values)})
    with train.MonitoredSession(hooks=[hook]) as session:
        assert [session.run(double) for _ in range(2)] == [2.0, 4.0]


@pytest.mark.original_api("tf.train.FinalOpsHook")
def test_final_ops_are_evaluated_at_the_end(step_op):
    number = v1.placeholder(tf.int64, [])
    hook = train.FinalOpsHook({"sum": train.get_global_step() + number}, {number: 100})
    assert hook.final_ops_values is None
    run(step_op, hook)
    assert hook.final_ops_values == {"sum": 105}


@pytest.mark.original_api("tf.train.GlobalStepWaiterHook")
def test_a_task_may_wait_for_the_others_to_come_to_a_step(step_op, monkeypatch):
    waits = []

    class Others(train.SessionRunHook):
        """Makes a step whenever the waiting task sleeps."""

        def after_create_session(self, session, coord):
            def sleep(secs):
                waits.append(secs)
                session.run(step_op)

            monkeypatch.setattr(time, "sleep", sleep)

    run(step_op, Others(), train.GlobalStepWaiterHook(wait_until_step=3), steps=1)
    assert len(waits) == 3


@pytest.mark.original_api("tf.train.SecondOrStepTimer")
def test_a_timer_counts_steps_or_seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    steps = train.SecondOrStepTimer(every_steps=3)
    assert steps.should_trigger_for_step(1)
    assert steps.update_last_triggered_step(1) == (None, None)
    assert [steps.should_trigger_for_step(step) for step in (1, 3, 4)] == [False, False, True]
    now[0] = 102.0
    assert steps.update_last_triggered_step(4) == (2.0, 3)
    assert steps.last_triggered_step() == 4
    secs = train.SecondOrStepTimer(every_secs=1.0)
    secs.update_last_triggered_step(1)
    assert not secs.should_trigger_for_step(2)
    now[0] = 103.5
    assert secs.should_trigger_for_step(2)
    for wrong in ({}, {"every_secs": 1.0, "every_steps": 1}):
        with pytest.raises(ValueError, match="every_secs"):
            train.SecondOrStepTimer(**wrong)


@pytest.mark.original_api(
    "tf.train.SessionRunHook",
    "tf.train.SessionRunArgs",
    "tf.train.SessionRunContext",
    "tf.train.SessionRunValues",
)
def test_a_hook_adds_fetches_feeds_and_options_and_sees_the_values(step_op):
    number = v1.placeholder(tf.float32, [])
    double = 2 * number
    seen = []

    class Hook(train.SessionRunHook):
        def before_run(self, run_context):
            assert isinstance(run_context, train.SessionRunContext)
            assert run_context.original_args == train.SessionRunArgs(step_op, None)
            assert isinstance(run_context.session, v1.Session)
            return train.SessionRunArgs(
                {"double": double},
                {number: 3.0},
                v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE),
            )

        def after_run(self, run_context, run_values):
            assert isinstance(run_values, train.SessionRunValues)
            seen.append((run_values.results, len(run_values.run_metadata.step_stats.dev_stats) > 0))
            assert not run_context.stop_requested
            run_context.request_stop()

    run(step_op, Hook())
    assert seen == [({"double": 6.0}, True)]


@pytest.mark.original_api("tf.train.SessionRunHook")
def test_two_hooks_may_not_feed_the_same(step_op):
    number = v1.placeholder(tf.float32, [])
    feed = train.FeedFnHook(lambda: {number: 1.0})
    with pytest.raises(RuntimeError, match="Same tensor is fed by two hooks"):
        run(step_op, feed, train.FeedFnHook(lambda: {number: 2.0}))
