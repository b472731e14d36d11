"""The effect of each monitor, without a loop."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.learn import NanLossDuringTrainingError, train
from paramserve.contrib.learn.monitors import (
    CaptureVariable,
    CheckpointSaver,
    GraphDump,
    LoggingTrainable,
    NanLoss,
    PrintTensor,
    StepCounter,
    StopAtStep,
    SummarySaver,
    ValidationMonitor,
    get_default_monitors,
)

v1 = tf.compat.v1


def run(monitor, steps, outputs=lambda step: {}, session=None, max_steps=None):
    """Calls a monitor around steps until it stops; returns those that were made."""
    monitor.begin(max_steps=max_steps)
    made = []
    for step in steps:
        monitor.step_begin(step)
        made.append(step)
        stop = monitor.step_end(step, outputs(step))
        monitor.post_step(step, session)
        if stop:
            break
    monitor.end(session=session)
    return made


class FakeWriter:
    def __init__(self):
        self.written = []
        self.flushes = 0

    def add_summary(self, summary, step):
        self.written.append((step, summary))

    def flush(self):
        self.flushes += 1


def messages(caplog):
    return [r.getMessage() for r in caplog.records if "monitors" in r.name]


# Stopping


@pytest.mark.parametrize("arguments", [{}, {"num_steps": 1, "last_step": 1}])
def test_stop_at_step_needs_one_limit(arguments):
    with pytest.raises(ValueError, match="exactly one of num_steps and last_step"):
        StopAtStep(**arguments)


def test_stop_at_step():
    assert StopAtStep(last_step=5).run_on_all_workers
    assert run(StopAtStep(last_step=5), range(3, 20)) == [3, 4, 5]
    assert run(StopAtStep(last_step=5), [7, 8]) == [7]
    assert run(StopAtStep(num_steps=5), range(3, 20)) == [3, 4, 5, 6, 7]


def test_nan_loss_raises_or_stops(caplog):
    def outputs(step):
        return {"loss:0": np.float32(np.nan if step > 2 else 1.0)}

    with pytest.raises(NanLossDuringTrainingError):
        run(NanLoss("loss:0", every_n_steps=1), range(1, 9), outputs)
    tolerant = NanLoss("loss:0", every_n_steps=2, fail_on_nan_loss=False)
    assert run(tolerant, range(1, 9), outputs) == [1, 2, 3]
    assert [r.levelname for r in caplog.records] == ["ERROR", "WARNING"]


# Printing


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ({"loss": "loss:0", "gone": "gone:0"}, "Step 1: loss = 2.5"),
        (["loss:0", "weight:0"], "Step 1: loss:0 = 2.5, weight:0 = [1 2]"),
    ],
)
def test_print_tensor(caplog, names, line):
    caplog.set_level(logging.INFO)
    outputs = {"loss:0": 2.5, "weight:0": np.array([1, 2])}
    run(PrintTensor(names, every_n=3), range(1, 6), lambda step: outputs)
    assert messages(caplog) == [line, line.replace("Step 1", "Step 4")]


def test_logging_trainable(caplog, graph, output_dir, counter):
    caplog.set_level(logging.INFO)
    for scope in ("layer", "head"):
        with v1.variable_scope(scope):
            v1.get_variable("weight", initializer=1.0)
    arguments = graph, output_dir, counter.train_op, counter.loss
    train(*arguments, monitors=[LoggingTrainable("la.er", every_n=2)], max_steps=3)
    start = "Logging Trainable: Step"
    assert messages(caplog) == [f"{start} {step}: layer/weight:0 = 1.0" for step in (1, 3)]
    train(*arguments, monitors=[LoggingTrainable()], max_steps=4)
    assert messages(caplog)[-1] == f"{start} 4: layer/weight:0 = 1.0, head/weight:0 = 1.0"


# Capturing


def test_capture_variable_in_training(variables, graph, output_dir, model):
    """The name of a resource variable is that of its handle, whose value means nothing."""
    capture = CaptureVariable("weight:0", every_n=2)
    train(graph, output_dir, model.train_op, model.loss, monitors=[capture], max_steps=5)
    assert sorted(capture.values) == [1, 3, 5]
    # Read in the same run as the step, hence before its update or after it.
    for step, value in capture.values.items():
        assert value in (10 / 2**step, 20 / 2**step)


def dump_of(rate, output_dir):
    """A dump of two steps of a small model."""
    with tf.Graph().as_default() as graph:
        x = tf.constant([[1.0, 2.0]], name="x")
        weight = v1.get_variable("weight", initializer=[[1.0], [1.0]])
        names = tf.strings.as_string(x, name="names")
        prediction = tf.matmul(x, weight, name="prediction")
        loss = tf.reduce_sum(prediction**2, name="loss")
        step = v1.train.get_or_create_global_step()
        op = v1.train.GradientDescentOptimizer(rate).minimize(loss, global_step=step)
        with tf.control_dependencies([names]):
            dump = GraphDump()
            train(graph, output_dir, op, loss, monitors=[dump], max_steps=2)
    return dump


def test_graph_dumps_of_two_runs_can_be_compared(tmp_path):
    one, same, other = (
        dump_of(rate, str(tmp_path / name)) for name, rate in (("a", 0.1), ("b", 0.1), ("c", 0.2))
    )
    assert sorted(one.data) == [1, 2]
    assert one.data[1]["prediction:0"] == [[3.0]]
    matched, different = one.compare(same, step=1)
    assert {"loss:0", "prediction:0", "names:0"} <= set(matched)
    # Other reads of variables may come before or after the update: the order is not defined.
    assert all("Read" in name or name.startswith("global_step") for name in different)
    matched, different = one.compare(other, step=2)
    assert "names:0" in matched
    assert different["prediction:0"] == (one.data[2]["prediction:0"], other.data[2]["prediction:0"])
    assert different.keys().isdisjoint(matched)
    assert one.compare(other, step=2, atol=1000.0)[1] == {}  # Nothing is as different as that.
    del other.data[1]["loss:0"]
    with pytest.raises(ValueError, match=r"no 'loss:0'"):
        one.compare(other, step=1)
    with pytest.raises(ValueError, match="step 3 was not dumped"):
        one.compare(same, step=3)


def test_a_graph_dump_runs_nothing_that_writes(graph):
    v1.get_variable_scope().set_use_resource(False)
    v1.get_variable("ref", initializer=1.0).assign_add(1.0)
    tf.constant(1.0, name="ignored")
    tf.add(1.0, 2.0, name="sum")
    dump = GraphDump(ignore_ops=["Const"])
    dump.begin()
    names = [tensor.name for tensor in dump.step_begin(1)]
    assert "sum:0" in names
    assert not [name for name in names if "Assign" in name or "ignored" in name]


# Writing


def test_summary_saver_of_thirty_steps():
    writer = FakeWriter()
    saver = SummarySaver("merged:0", save_steps=8, summary_writer=writer)
    run(saver, range(30), lambda step: {"merged:0": f"summary {step}"}, max_steps=29)
    assert writer.written == [(step, f"summary {step}") for step in (0, 1, 9, 17, 25, 29)]
    assert writer.flushes == 1


def test_summary_saver_finds_its_op_and_its_directory(graph, output_dir, counter, summaries):
    v1.summary.scalar("loss", counter.loss)
    scaffold = v1.train.Scaffold(summary_op=v1.summary.merge_all())
    saver = SummarySaver(None, scaffold=scaffold)
    saver.set_estimator(SimpleNamespace(model_dir=output_dir))
    train(graph, output_dir, counter.train_op, counter.loss, monitors=[saver], max_steps=3)
    assert summaries() == [(1, "loss", 2.0), (3, "loss", 2.0)]


def test_a_summary_saver_without_anything_to_save():
    run(SummarySaver(None, summary_writer=FakeWriter()), range(3))


def test_step_counter_writes_from_its_second_active_step_on():
    writer, now = FakeWriter(), iter([0.0, 2.0, 4.5])
    run(StepCounter(10, summary_writer=writer, clock=lambda: next(now)), range(1, 30))
    written = [(step, s.value[0].tag, s.value[0].simple_value) for step, s in writer.written]
    assert written == [(11, "global_step/sec", 5.0), (21, "global_step/sec", 4.0)]


@pytest.mark.parametrize("arguments", [{}, {"save_secs": 1, "save_steps": 1}])
def test_checkpoint_saver_needs_one_cadence(arguments):
    with pytest.raises(ValueError, match="exactly one of save_secs and save_steps"):
        CheckpointSaver("somewhere", **arguments)


@pytest.mark.parametrize(
    ("cadence", "steps", "saved"),
    [
        ({"save_steps": 2}, range(1, 6), [1, 3, 5]),
        ({"save_steps": 2}, range(1, 7), [1, 3, 5, 6]),
        ({"save_secs": 25}, range(1, 7), [1, 4, 6]),
    ],
)
def test_checkpoint_saver(output_dir, counter, cadence, steps, saved, monkeypatch):
    """Ten seconds pass from each look at the clock to the next; saving looks at it as well."""
    clock = iter(range(0, 1000, 10))
    saver = v1.train.Saver()
    kept = []
    monkeypatch.setattr(saver, "save", lambda session, path, global_step: kept.append(global_step))
    monitor = CheckpointSaver(output_dir, saver=saver, clock=lambda: next(clock), **cadence)
    run(monitor, steps, session="session")
    assert kept == saved


def test_checkpoint_saver_with_a_scaffold_and_another_name(output_dir, counter, events):
    scaffold = v1.train.Scaffold()
    monitor = CheckpointSaver(
        output_dir, save_steps=100, scaffold=scaffold, checkpoint_basename="mine"
    )
    monitor.begin()
    scaffold.finalize()
    with v1.Session() as session:
        session.run(scaffold.init_op)
        for step in (1, 2):
            monitor.step_begin(step)
            monitor.post_step(step, session)
        monitor.end(session=session)
    assert tf.train.latest_checkpoint(output_dir) == f"{output_dir}/mine-2"


def test_default_monitors(graph):
    loss = tf.constant(1.0, name="loss")
    assert get_default_monitors() == []
    [printer] = get_default_monitors(loss_op=loss)
    printer.begin()
    assert printer.step_begin(1) == ["loss:0"]
    writer = FakeWriter()
    _, saver = get_default_monitors(loss, tf.constant(b"", name="merged"), 7, None, writer)
    run(saver, range(1, 10), lambda step: {"merged:0": step})
    assert writer.written == [(1, 1), (8, 8)]


# Validation


class Estimator:
    """An estimator with a checkpoint for each step, and given losses."""

    def __init__(self, losses, model_dir, monkeypatch):
        self._losses = iter(losses)
        self.model_dir = model_dir
        self.calls = []
        self.checkpoints = iter(f"{model_dir}/model.ckpt-{n}" for n in range(100))
        monkeypatch.setattr(
            tf.train, "latest_checkpoint", lambda folder: next(self.checkpoints, None)
        )

    def evaluate(self, **arguments):
        self.calls.append(arguments)
        return {"loss": next(self._losses), "other": len(self.calls)}


def every_step(**arguments):
    return ValidationMonitor(x="x", every_n_steps=1, check_interval_secs=None, **arguments)


def test_validation_needs_data_and_an_estimator():
    with pytest.raises(ValueError, match="Either x or input_fn"):
        ValidationMonitor()
    with pytest.raises(ValueError, match="set_estimator"):
        run(every_step(), [1])


def test_validation_passes_on_what_it_is_given(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    estimator = Estimator([3.0], "model", monkeypatch)
    monitor = every_step(y="y", batch_size=3, eval_steps=5, name="mine", metrics={"a": 1})
    monitor.set_estimator(estimator)
    assert run(monitor, [1]) == [1]
    assert estimator.calls == [
        {"x": "x", "y": "y", "batch_size": 3, "steps": 5, "name": "mine", "metrics": {"a": 1}}
    ]
    assert messages(caplog) == ["Validation (step 1): loss = 3.0, other = 1"]
    assert not monitor.early_stopped
    assert monitor.best_step is None


def test_only_new_checkpoints_are_evaluated(monkeypatch):
    estimator = Estimator(range(9), "model", monkeypatch)
    estimator.checkpoints = iter([None, "a", "a", "b"])
    monitor = every_step()
    monitor.set_estimator(estimator)
    run(monitor, range(1, 8))
    assert len(estimator.calls) == 2


def test_the_best_metrics_do_not_change_with_the_estimators(monkeypatch):
    class Reusing(Estimator):
        metrics = {"loss": None, "counts": np.zeros(2)}

        def evaluate(self, **arguments):
            self.metrics["loss"] = super().evaluate(**arguments)["loss"]
            self.metrics["counts"] += 1
            return self.metrics

    monitor = every_step(early_stopping_rounds=9)
    monitor.set_estimator(Reusing([3.0, 4.0], "model", monkeypatch))
    run(monitor, [1, 2])
    assert monitor.best_metrics["loss"] == monitor.best_value == 3.0
    assert monitor.best_metrics["counts"].tolist() == [1, 1]


def test_it_does_not_look_for_checkpoints_too_often(monkeypatch):
    estimator = Estimator(range(9), "model", monkeypatch)
    now = iter(range(0, 100, 2))
    monitor = ValidationMonitor(input_fn=len, every_n_steps=1, clock=lambda: next(now))
    monitor.set_estimator(estimator)
    run(monitor, range(1, 8))  # At 0, 2, ..., 12 s, and it has to be 5 s later.
    assert len(estimator.calls) == 3


@pytest.mark.parametrize(
    ("losses", "minimize", "made", "best"),
    [
        ([5, 3, 4, 4, 2, 1], True, 4, (2, 3, {"loss": 3, "other": 2})),
        ([5, 4, 3, 2, 1, 0], True, 6, (6, 0, {"loss": 0, "other": 6})),
        ([5, 3, 4, 6, 7, 8], False, 3, (1, 5, {"loss": 5, "other": 1})),
    ],
)
def test_training_stops_when_it_gets_no_better(monkeypatch, losses, minimize, made, best):
    monitor = every_step(early_stopping_rounds=2, early_stopping_metric_minimize=minimize)
    monitor.set_estimator(Estimator(losses, "model", monkeypatch))
    assert run(monitor, range(1, 7)) == list(range(1, made + 1))
    assert monitor.early_stopped == (made < 6)
    assert (monitor.best_step, monitor.best_value, monitor.best_metrics) == best


@pytest.mark.parametrize("metrics", [{"other": 1}, {}, None])
def test_a_metric_that_is_not_there_is_named(monkeypatch, metrics):
    estimator = Estimator([], "model", monkeypatch)
    monkeypatch.setattr(estimator, "evaluate", lambda **arguments: metrics)
    monitor = every_step()
    monitor.set_estimator(estimator)
    assert run(monitor, [1]) == [1]
    monitor = every_step(early_stopping_rounds=2, early_stopping_metric="accuracy")
    monitor.set_estimator(estimator)
    with pytest.raises(ValueError, match="'accuracy' is missing from outputs of the evaluation"):
        run(monitor, [1])


def test_validation_ends_a_real_training(graph, output_dir, model):
    """The estimator is any object with a `model_dir` and an `evaluate`."""
    seen = []

    class Reader:
        model_dir = output_dir

        def evaluate(self, input_fn):
            seen.append(tf.train.load_variable(self.model_dir, "weight"))
            return {"loss": abs(seen[-1] - 2.5)}

    monitor = ValidationMonitor(
        input_fn=len, every_n_steps=1, early_stopping_rounds=2, check_interval_secs=0
    )
    monitor.set_estimator(Reader())
    train(
        graph,
        output_dir,
        model.train_op,
        model.loss,
        monitors=[CheckpointSaver(output_dir, save_steps=1), monitor],
        max_steps=50,
    )
    assert monitor.early_stopped
    assert monitor.best_value == 0.0
    assert len(seen) < 10
