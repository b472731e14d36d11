"""The evaluation of checkpoints: the runs of a session, the results, and the end."""

import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.training import (
    StopAfterNEvalsHook,
    SummaryAtEndHook,
    evaluate_once,
    evaluate_repeatedly,
    get_or_create_eval_step,
)

v1 = tf.compat.v1
TASK = Path(__file__).with_name("evaluation_task.py")


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture
def save(tmp_path):
    """Writes a checkpoint of the model below, whose weight is ten times the step."""

    def save(step):
        with tf.Graph().as_default(), v1.Session() as session:
            weight = v1.get_variable("weight", initializer=10.0 * step)
            counter = v1.train.create_global_step()
            saver = v1.train.Saver([weight, counter])
            session.run(v1.global_variables_initializer())
            session.run(counter.assign(step))
            return saver.save(session, str(tmp_path / "model.ckpt"), step)

    return save


def model():
    """A model that sums its weight over the steps."""
    weight = v1.get_variable("weight", initializer=0.0)
    total = v1.get_local_variable("total", initializer=0.0)
    return total, total.assign_add(weight)


def events(folder):
    files = sorted(Path(folder).glob("events.out.tfevents.*"))
    return [event for file in files for event in v1.train.summary_iterator(str(file))]


def values(folder):
    """The values written, by tag, each with its step."""
    return [
        (event.step, value.tag, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
    ]


# One checkpoint


def test_steps_run_until_the_hook_stops_them(save):
    total, update = model()
    path = save(2)
    hooks = [StopAfterNEvalsHook(3)]
    assert evaluate_once(path, eval_ops=update, final_ops=total, hooks=hooks) == 60.0
    # The next evaluation starts from zero.
    hooks = [StopAfterNEvalsHook(1)]
    assert evaluate_once(path, eval_ops=[update], final_ops={"sum": total}, hooks=hooks) == {
        "sum": 20.0
    }


def test_steps_run_until_the_input_ends(save):
    total, _ = model()
    data = tf.data.Dataset.from_tensor_slices([1.0, 2.0, 4.0])
    add = total.assign_add(v1.data.make_one_shot_iterator(data).get_next())
    assert evaluate_once(save(1), eval_ops=add, final_ops=total) == 7.0


def test_without_eval_ops_only_the_final_ops_run(save):
    total, _ = model()
    weight = v1.global_variables()[0]
    assert evaluate_once(save(3), final_ops=[weight, total]) == [30.0, 0.0]


def test_without_final_ops_there_is_no_value(save):
    _, update = model()
    assert evaluate_once(save(1), eval_ops=update, hooks=[StopAfterNEvalsHook(2)]) is None


def test_without_a_checkpoint_the_model_is_initialized():
    total, update = model()
    hooks = [StopAfterNEvalsHook(2)]
    assert evaluate_once(None, eval_ops=update, final_ops=total, hooks=hooks) == 0.0


def test_feeds_reach_the_steps_and_the_final_ops(save):
    total, _ = model()
    number = v1.placeholder(tf.float32, [])
    value = evaluate_once(
        save(1),
        eval_ops=total.assign_add(number),
        feed_dict={number: 2.0},
        final_ops=total * number,
        final_ops_feed_dict={number: 100.0},
        hooks=[StopAfterNEvalsHook(3)],
    )
    assert value == 600.0


@pytest.mark.parametrize("form", [list, tuple, dict])
def test_what_the_caller_passed_is_left_as_it_was(save, form):
    total, update = model()
    eval_ops = {"update": update} if form is dict else form([update])
    hooks = [StopAfterNEvalsHook(2)]
    before = form(eval_ops), list(hooks)
    assert evaluate_once(save(1), eval_ops=eval_ops, final_ops=total, hooks=hooks) == 20.0
    assert (
        evaluate_repeatedly(
            str(Path(save(2)).parent),
            eval_ops=eval_ops,
            final_ops=total,
            hooks=hooks,
            max_number_of_evaluations=1,
        )
        == 40.0
    )
    assert (eval_ops, hooks) == before


def test_the_scaffold_and_the_configuration_count(save):
    total, update = model()

    class Devices(v1.train.SessionRunHook):
        def after_create_session(self, session, coord):
            self.count = len(session.list_devices())

    devices = Devices()
    init = tf.group(total.assign(500.0), get_or_create_eval_step().initializer)
    value = evaluate_once(
        save(1),
        scaffold=v1.train.Scaffold(local_init_op=init),
        eval_ops=update,
        final_ops=total,
        hooks=[StopAfterNEvalsHook(1), devices],
        config=v1.ConfigProto(device_count={"CPU": 3}),
    )
    assert value == 510.0
    assert devices.count == 3


def test_it_runs_on_a_server(save):
    total, update = model()
    server = v1.train.Server.create_local_server()
    hooks = [StopAfterNEvalsHook(2)]
    value = evaluate_once(save(1), server.target, None, update, final_ops=total, hooks=hooks)
    assert value == 20.0
    with pytest.raises(ValueError, match="localhost"):
        evaluate_once(save(1), "localhost:2222")


def test_a_missing_checkpoint_is_an_error_and_the_graph_stays_open(tmp_path, graph):
    model()
    with pytest.raises(ValueError, match="not there"):
        evaluate_once(str(tmp_path / "not there"))
    assert not graph.finalized


def test_outside_a_graph_the_error_says_what_to_do():
    # A new thread is outside every graph, as a program is at its start.
    with ThreadPoolExecutor() as pool:
        for call in (evaluate_once, evaluate_repeatedly):
            with pytest.raises(RuntimeError, match=r"tf\.Graph\(\)\.as_default\(\)"):
                pool.submit(call, "anywhere").result()


# Many checkpoints


def test_each_new_checkpoint_is_evaluated(save, tmp_path, graph):
    total, update = model()
    save(1)
    sizes, totals = [], []

    class Save(v1.train.SessionRunHook):
        def end(self, session):
            sizes.append(len(graph.get_operations()))
            totals.append(session.run(total))
            if len(sizes) < 3:
                save(len(sizes) + 1)

    value = evaluate_repeatedly(
        str(tmp_path),
        eval_ops=update,
        final_ops=total,
        eval_interval_secs=0,
        hooks=[StopAfterNEvalsHook(2), SummaryAtEndHook(str(tmp_path / "eval")), Save()],
        timeout=0,
    )
    assert totals == [20.0, 40.0, 60.0]
    assert value == 60.0
    # The graph does not grow with each.
    assert sizes[0] == sizes[1] == sizes[2]


def test_the_number_of_evaluations_is_limited(save, tmp_path):
    total, update = model()
    evaluated = []

    class Save(v1.train.SessionRunHook):
        def end(self, session):
            evaluated.append(session.run(v1.global_variables()[0]))
            save(len(evaluated) + 1)

    save(1)
    value = evaluate_repeatedly(
        str(tmp_path),
        eval_ops=update,
        final_ops=total,
        eval_interval_secs=0,
        hooks=[StopAfterNEvalsHook(1), Save()],
        max_number_of_evaluations=2,
    )
    assert evaluated == [10.0, 20.0]
    assert value == 20.0
    with pytest.raises(ValueError, match="max_number_of_evaluations=0"):
        evaluate_repeatedly(str(tmp_path), max_number_of_evaluations=0)


def test_nothing_evaluated_is_none(tmp_path):
    total, update = model()
    calls = []
    value = evaluate_repeatedly(
        str(tmp_path),
        eval_ops=update,
        final_ops=total,
        timeout=0,
        timeout_fn=lambda: calls.append(1) or len(calls) == 3,
    )
    assert value is None
    assert len(calls) == 3


def test_a_checkpoint_that_is_gone_is_passed_over(save, tmp_path, caplog):
    total, update = model()
    save(1)

    class DeleteFirst(v1.train.SessionRunHook):
        begun = 0

        def begin(self):
            # Between being found and being read, the checkpoint is replaced by the next.
            self.begun += 1
            if self.begun == 1:
                for file in tmp_path.glob("model.ckpt-1.*"):
                    file.unlink()
                save(2)

    hook = DeleteFirst()
    value = evaluate_repeatedly(
        str(tmp_path),
        eval_ops=update,
        final_ops=total,
        eval_interval_secs=0,
        hooks=[StopAfterNEvalsHook(1), hook],
        timeout=0,
    )
    assert value == 20.0
    assert hook.begun == 2
    assert "model.ckpt-1, which is gone" in caplog.text


def test_a_checkpoint_that_does_not_fit_is_an_error(save, tmp_path):
    v1.get_variable("another", initializer=0.0)
    save(1)
    with pytest.raises(tf.errors.NotFoundError, match="another"):
        evaluate_repeatedly(str(tmp_path), timeout=0)


def test_it_waits_for_the_first_checkpoint(save, tmp_path):
    total, update = model()
    later = threading.Timer(0.3, save, [4])
    later.start()
    value = evaluate_repeatedly(
        str(tmp_path),
        eval_ops=update,
        final_ops=total,
        hooks=[StopAfterNEvalsHook(1)],
        max_number_of_evaluations=1,
        timeout=60,
    )
    later.join()
    assert value == 40.0


# Counting steps


def test_the_counter_is_made_once_and_is_local():
    counter = get_or_create_eval_step()
    assert get_or_create_eval_step() is counter
    assert counter.dtype.base_dtype is tf.int64
    assert counter.shape == []
    assert [each is counter for each in v1.local_variables()] == [True]
    assert not v1.global_variables()
    v1.add_to_collection(v1.GraphKeys.EVAL_STEP, tf.constant(0))
    with pytest.raises(ValueError, match="multiple"):
        get_or_create_eval_step()


@pytest.mark.parametrize(
    ("num_evals", "logged"),
    [(3, [1, 2, 3]), (19, range(1, 20)), (20, range(2, 21, 2)), (25, [*range(2, 25, 2), 25])],
)
def test_steps_are_logged_each_or_ten_times(num_evals, logged, save, caplog):
    caplog.set_level(logging.INFO)
    _, update = model()
    evaluate_once(save(1), eval_ops=update, hooks=[StopAfterNEvalsHook(num_evals)])
    found = [text for text in caplog.messages if text.startswith("Evaluation [")]
    assert found == [f"Evaluation [{n}/{num_evals}]" for n in logged]


def test_steps_need_not_be_logged(save, caplog):
    caplog.set_level(logging.INFO)
    _, update = model()
    evaluate_once(save(1), eval_ops=update, hooks=[StopAfterNEvalsHook(2, log_progress=False)])
    assert not [text for text in caplog.messages if text.startswith("Evaluation [")]


def test_without_a_number_steps_go_on_to_the_end_of_the_input(save, caplog):
    caplog.set_level(logging.INFO)
    model()
    data = v1.data.make_one_shot_iterator(tf.data.Dataset.range(3)).get_next()
    evaluate_once(save(1), eval_ops=data, hooks=[StopAfterNEvalsHook(None)])
    assert "Evaluation [3]" in caplog.messages


def test_the_hook_stops_any_session_that_counts():
    step = get_or_create_eval_step().assign_add(1)
    with v1.train.MonitoredSession(hooks=[StopAfterNEvalsHook(3)]) as session:
        runs = 0
        while not session.should_stop():
            session.run(step)
            runs += 1
    # In such a session the counter is read while the step runs.
    assert runs in (3, 4)


# Summaries


def test_summaries_are_written_at_the_checkpoints_step(save, tmp_path):
    total, update = model()
    v1.summary.scalar("sum", total)
    logdir = str(tmp_path / "eval")
    hooks = [StopAfterNEvalsHook(3), SummaryAtEndHook(logdir)]
    evaluate_once(save(7), eval_ops=update, hooks=hooks)
    assert values(logdir) == [(7, "sum", 210.0)]


def test_a_chosen_summary_goes_to_a_chosen_writer(save, tmp_path):
    _, update = model()
    number = v1.placeholder(tf.float32, [])
    v1.summary.scalar("other", 1.0)
    summary = v1.summary.scalar("number", number)
    writer = v1.summary.FileWriter(str(tmp_path / "eval"))
    hook = SummaryAtEndHook(
        summary_writer=writer, summary_op=summary, feed_dict={number: np.float32(2.5)}
    )
    evaluate_once(save(3), eval_ops=update, hooks=[StopAfterNEvalsHook(1), hook])
    assert values(tmp_path / "eval") == [(3, "number", 2.5)]


def test_a_graph_without_summaries_writes_none(save, tmp_path):
    _, update = model()
    logdir = str(tmp_path / "eval")
    evaluate_once(
        save(1), eval_ops=update, hooks=[StopAfterNEvalsHook(1), SummaryAtEndHook(logdir)]
    )
    assert values(logdir) == []


def test_summaries_need_a_place():
    with pytest.raises(ValueError, match="log_dir and summary_writer are both None"):
        SummaryAtEndHook()


# Other graph modes


@pytest.mark.parametrize("mode", ["disable_eager_execution", "disable_v2_behavior"])
def test_programs_that_switched_the_graph_mode_evaluate_too(mode, tmp_path):
    command = [sys.executable, str(TASK), mode, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    kind, accuracy, steps = done.stdout.split()
    assert kind == ("RefVariable" if mode == "disable_v2_behavior" else "ResourceVariable")
    assert float(accuracy) == 1.0
    assert int(steps) == 100
