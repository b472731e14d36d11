"""Monitors in a `MonitoredSession`."""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from paramserve.contrib.learn.monitors import (
    BaseMonitor,
    CaptureVariable,
    RunHookAdapterForMonitors,
    StopAtStep,
    replace_monitors_with_hooks,
)

v1 = tf.compat.v1


class Recorder(BaseMonitor):
    def __init__(self, requests=None):
        super().__init__()
        self.requests = requests
        self.calls = []

    def begin(self, max_steps=None):
        self.calls.append(("begin", max_steps))

    def step_begin(self, step):
        self.calls.append(("step_begin", step))
        return self.requests

    def step_end(self, step, output):
        self.calls.append(("step_end", step, output))

    def post_step(self, step, session):
        self.calls.append(("post_step", step, type(session)))

    def end(self, session=None):
        self.calls.append(("end", type(session)))


def test_steps_are_numbered_by_the_global_step(variables, counter):
    recorder = Recorder()
    to_ten, by_five = counter.step.assign(10).op, counter.step.assign_add(5)
    hook = RunHookAdapterForMonitors([recorder])
    with v1.train.MonitoredSession(hooks=[hook]) as session:
        session.run(to_ten)  # As step 1.
        for _ in range(3):
            session.run(by_five)
    one = [("begin", None)]
    for step in (1, 11, 16, 21):
        one += [("step_begin", step), ("step_end", step, {}), ("post_step", step, v1.Session)]
    assert recorder.calls == [*one, ("end", v1.Session)]


def test_requests_are_gathered_and_delivered(variables, model):
    tensor = tf.constant(3.0, name="three")
    tf.constant(4.0, name="four")
    first = Recorder([tensor, "four", "weight:0"])
    second = Recorder(["four:0", model.train_op])
    with v1.train.MonitoredSession(hooks=[RunHookAdapterForMonitors([first, second])]) as session:
        session.run(model.step)
    outputs = first.calls[2][2]
    assert outputs == second.calls[2][2]
    weight = outputs.pop("weight:0")
    assert weight in (10.0, 5.0)
    assert outputs == {"three:0": 3.0, "four": 4.0, "four:0": 4.0, model.train_op: None}


@pytest.mark.parametrize(
    ("requests", "message"),
    [("three", "should return a list"), (["pair"], r"'pair' has 2 outputs: name one of them")],
)
def test_requests_that_mean_nothing_are_refused(counter, requests, message):
    tf.unstack(tf.constant([1.0, 2.0]), name="pair")
    hook = RunHookAdapterForMonitors([Recorder(requests)])
    with (
        v1.train.MonitoredSession(hooks=[hook]) as session,
        pytest.raises(ValueError, match=message),
    ):
        session.run(counter.train_op)


def test_a_monitor_can_stop_the_session(counter):
    monitors = [StopAtStep(last_step=3), CaptureVariable("global_step:0", every_n=1)]
    runs = 0
    with v1.train.MonitoredSession(hooks=[RunHookAdapterForMonitors(monitors)]) as session:
        while not session.should_stop():
            session.run(counter.train_op)
            runs += 1
    assert runs == 3
    assert sorted(monitors[1].values) == [1, 2, 3]


def test_without_a_global_step_there_is_nothing_to_count():
    with pytest.raises(RuntimeError, match="global step"):
        v1.train.MonitoredSession(hooks=[RunHookAdapterForMonitors([Recorder()])])


@pytest.mark.parametrize("is_chief", [True, False])
def test_monitors_among_hooks_become_one_hook(is_chief):
    estimator = SimpleNamespace(config=SimpleNamespace(is_chief=is_chief))
    hook = v1.train.SessionRunHook()
    chiefs, everyones = BaseMonitor(), StopAtStep(last_step=1)
    hooks = replace_monitors_with_hooks([chiefs, hook, everyones], estimator)
    assert hooks[0] is hook
    assert isinstance(hooks[1], RunHookAdapterForMonitors)
    assert everyones._estimator is estimator
    assert (chiefs._estimator is estimator) == is_chief
    assert replace_monitors_with_hooks([hook], estimator) == [hook]
    assert replace_monitors_with_hooks(None, estimator) == []
