"""`contrib.learn.train`: the number of steps, and the work around them."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.learn import train
from paramserve.contrib.learn.monitors import (
    BaseMonitor,
    CaptureVariable,
    CheckpointSaver,
    EveryN,
    StopAtStep,
)

v1 = tf.compat.v1


class Recorder(BaseMonitor):
    """Records its calls, and some values."""

    def __init__(self, *requests, everywhere=False, stop_at=None, calls=None):
        super().__init__()
        self._requests = list(requests)
        self._everywhere = everywhere
        self._stop_at = stop_at
        self.calls = [] if calls is None else calls
        self.outputs = []

    @property
    def run_on_all_workers(self):
        return self._everywhere

    def begin(self, max_steps=None):
        super().begin(max_steps=max_steps)
        self.calls.append(("begin", max_steps))

    def step_begin(self, step):
        super().step_begin(step)
        self.calls.append(("step_begin", step))
        return self._requests

    def step_end(self, step, output):
        super().step_end(step, output)
        self.calls.append(("step_end", step))
        self.outputs.append(output)
        return step == self._stop_at

    def post_step(self, step, session):
        super().post_step(step, session)
        assert isinstance(session, v1.Session)
        self.calls.append(("post_step", step))

    def end(self, session=None):
        super().end(session=session)
        self.calls.append(("end", session is not None))


# How many


@pytest.mark.original_api("tf.contrib.learn.train(steps)")
def test_steps_count_from_the_newest_checkpoint(variables, graph, output_dir, counter, saved):
    train(graph, output_dir, counter.train_op, counter.loss, steps=10)
    assert saved() == 10
    train(graph, output_dir, counter.train_op, counter.loss, steps=15)
    assert saved() == 25


@pytest.mark.original_api("tf.contrib.learn.train(max_steps)", "tf.contrib.learn.train returns")
def test_max_steps_counts_from_the_beginning(graph, output_dir, counter, saved):
    recorder = Recorder()
    for max_steps in (10, 15):
        assert train(graph, output_dir, counter.train_op, counter.loss, max_steps=max_steps) == 2.0
        assert saved() == max_steps
    for max_steps in (15, 12):
        assert (
            train(
                graph,
                output_dir,
                counter.train_op,
                counter.loss,
                monitors=[recorder],
                max_steps=max_steps,
            )
            is None
        )
        assert saved() == 15
    assert recorder.calls == [("begin", 15), ("end", True), ("begin", 12), ("end", True)]


@pytest.mark.original_api("tf.contrib.learn.train(steps)", "tf.contrib.learn.train returns")
@pytest.mark.parametrize("limit", ["steps", "max_steps"])
def test_0_makes_no_step_but_initializes_and_saves(graph, output_dir, counter, saved, limit):
    arguments = {limit: 0}
    assert train(graph, output_dir, counter.train_op, counter.loss, **arguments) is None
    assert saved() == 0


@pytest.mark.original_api("tf.contrib.learn.train(max_steps)")
def test_a_train_op_that_counts_by_five_may_go_beyond_the_limit(graph, output_dir, counter, saved):
    train(graph, output_dir, counter.step.assign_add(5), counter.loss, max_steps=12)
    assert saved() == 15


@pytest.mark.original_api("tf.contrib.learn.train(feed_fn)")
def test_without_a_limit_it_trains_until_the_feeds_end(graph, output_dir, model, saved, caplog):
    """Each step is fed once; the last step's loss is returned."""
    caplog.set_level(logging.INFO)
    feeds = iter([{model.rate: rate} for rate in (0.5, 0.0, 0.8)])
    seen = CaptureVariable("PlaceholderWithDefault:0", every_n=1)
    loss = train(
        graph,
        output_dir,
        model.train_op,
        model.loss,
        feed_fn=lambda: next(feeds),
        monitors=[seen],
    )
    assert [float(rate) for rate in seen.values.values()] == pytest.approx([0.5, 0.0, 0.8])
    assert saved() == 3
    assert saved("weight") == pytest.approx(1.0)
    assert any(loss == pytest.approx(value) for value in (12.5, 0.5))
    assert "Training steps [0,inf)" in caplog.text
    assert "StopIteration" in caplog.text


@pytest.mark.original_api("tf.contrib.learn.train(feed_fn)")
def test_feed_fn_and_monitors_have_a_default_session(graph, output_dir, model):
    """The feeds are made before the monitors are asked."""
    order = []

    class Eager(BaseMonitor):
        def step_begin(self, step):
            super().step_begin(step)
            order.append(("monitor", v1.get_default_session().run(model.weight)))
            # As the original's own `CheckpointSaver` did: no list at all.

    def feed_fn():
        order.append(("feed_fn", model.weight.eval()))

    train(
        graph, output_dir, model.train_op, model.loss, feed_fn=feed_fn, monitors=[Eager()], steps=2
    )
    assert order == [("feed_fn", 10.0), ("monitor", 10.0), ("feed_fn", 5.0), ("monitor", 5.0)]


def test_the_end_of_a_queue_is_the_end_of_training(graph, output_dir, counter, saved):
    epochs = v1.train.limit_epochs(tf.constant(3.0), num_epochs=4)
    assert train(graph, output_dir, counter.train_op, epochs, max_steps=100) == 3.0
    assert saved() in (4, 5)  # The step that meets the end may count as well.


# Monitors


@pytest.mark.original_api("tf.contrib.learn.train(monitors)")
def test_monitors_are_called_around_each_step_in_their_order(graph, output_dir, counter):
    calls = []
    first, second = Recorder(calls=calls), Recorder(calls=calls)
    train(graph, output_dir, counter.train_op, counter.loss, monitors=[first, second], steps=2)
    once = [("begin", 2)]
    for step in (1, 2):
        once += [("step_begin", step), ("step_end", step), ("post_step", step)]
    once.append(("end", True))
    assert calls == [call for call in once for _ in range(2)]


@pytest.mark.original_api("tf.contrib.learn.train(monitors)")
def test_monitors_get_what_they_ask_for(variables, graph, output_dir, model):
    """Tensors under their names; names and everything else as requested."""
    with tf.control_dependencies([model.train_op]):
        after = model.weight.read_value()
    recorder = Recorder(after, "weight:0", model.weight, "loss", model.train_op)
    loss = train(
        graph, output_dir, model.train_op, model.loss, monitors=[recorder, Recorder(after)], steps=1
    )
    [outputs] = recorder.outputs
    assert outputs[after.name] == 5.0
    assert outputs["weight:0"] in (10.0, 5.0)
    assert outputs[model.weight] in (10.0, 5.0)
    assert outputs["loss"] in (50.0, 12.5)
    assert outputs[model.loss.name] == loss
    assert outputs[model.train_op] is None


def test_a_monitor_that_asks_with_no_list_is_told_so(graph, output_dir, counter):
    class Wrong(BaseMonitor):
        def step_begin(self, step):
            return "loss:0"

    with pytest.raises(ValueError, match=r"Wrong\.step_begin should return a list.*'loss:0'"):
        train(graph, output_dir, counter.train_op, counter.loss, monitors=[Wrong()], steps=1)


@pytest.mark.original_api("tf.contrib.learn.train(monitors)")
def test_a_monitor_can_stop_training_and_all_others_see_that_step(
    graph, output_dir, counter, saved
):
    others = Recorder(), Recorder()
    monitors = [others[0], Recorder(stop_at=3), others[1]]
    train(graph, output_dir, counter.train_op, counter.loss, monitors=monitors, max_steps=9)
    assert saved() == 3
    for other in others:
        assert other.calls[-3:] == [("step_end", 3), ("post_step", 3), ("end", True)]


def test_a_monitor_of_old_whose_end_takes_no_session(graph, output_dir, counter):
    ended = []

    class Old(BaseMonitor):
        def end(self):
            ended.append(True)

    train(graph, output_dir, counter.train_op, counter.loss, monitors=[Old()], steps=1)
    assert ended == [True]


@pytest.mark.original_api("tf.contrib.learn.train(monitors)")
def test_monitors_act_every_n_steps(graph, output_dir, counter):
    """The original never called `post_step`, so from step n on they acted in every step."""
    acted = []

    class Actor(EveryN):
        def every_n_step_begin(self, step):
            acted.append(step)
            return []

    train(
        graph,
        output_dir,
        counter.train_op,
        counter.loss,
        monitors=[Actor(every_n_steps=4)],
        max_steps=12,
    )
    assert acted == [1, 5, 9, 12]


def test_a_monitor_may_add_variables_when_it_begins(graph, output_dir, counter, saved):
    class Average(BaseMonitor):
        def begin(self, max_steps=None):
            super().begin(max_steps=max_steps)
            self.value = v1.get_variable("average", initializer=0.0)
            self.update = self.value.assign_add(1.0)

        def step_begin(self, step):
            return [self.update]

        def step_end(self, step, output):
            return False

    train(graph, output_dir, counter.train_op, counter.loss, monitors=[Average()], steps=3)
    assert saved("average") == 3.0


@pytest.mark.original_api("tf.contrib.learn.train(supervisor_is_chief)")
@pytest.mark.parametrize("is_chief", [True, False])
def test_another_worker_runs_only_the_monitors_for_all(
    graph, output_dir, counter, saved, events, is_chief
):
    """It waits for its chief; here its local init op makes it ready without one."""
    graph.add_to_collection(
        v1.GraphKeys.LOCAL_INIT_OP,
        tf.group(v1.global_variables_initializer(), v1.local_variables_initializer()),
    )
    chiefs, everyones = Recorder(), Recorder(everywhere=True)
    loss = train(
        graph,
        output_dir,
        counter.train_op,
        counter.loss,
        supervisor_is_chief=is_chief,
        monitors=[chiefs, everyones],
        init_fn=lambda session: None if is_chief else pytest.fail("the chief's work"),
        steps=2,
    )
    assert loss == 2.0
    assert everyones.calls[0] == ("begin", 2)
    assert everyones.calls[-1] == ("end", True)
    assert chiefs.calls == (everyones.calls if is_chief else [])
    assert saved() == (2 if is_chief else None)
    assert bool(events()) == is_chief


@pytest.mark.original_api("tf.contrib.learn.train(supervisor_master)")
def test_training_on_a_server(graph, output_dir, counter, saved):
    server = v1.train.Server.create_local_server()
    with v1.Session(server.target, graph=graph) as other:
        train(
            graph,
            output_dir,
            counter.train_op,
            counter.loss,
            supervisor_master=server.target,
            steps=4,
        )
        assert other.run(counter.step) == 4
    assert saved() == 4


# Summaries


@pytest.mark.original_api("tf.contrib.learn.train(supervisor_save_summaries_steps)")
@pytest.mark.parametrize(
    ("every", "written"), [(100, [1, 5]), (2, [1, 3, 5]), (3, [1, 4, 5]), (0, [1, 2, 3, 4, 5])]
)
def test_summaries_are_written_at_the_first_step_every_n_and_last(
    variables, graph, output_dir, counter, summaries, every, written
):
    v1.summary.scalar("loss", counter.loss)
    train(
        graph,
        output_dir,
        counter.train_op,
        counter.loss,
        supervisor_save_summaries_steps=every,
        max_steps=5,
    )
    assert summaries() == [(step, "loss", 2.0) for step in written]


@pytest.mark.original_api("tf.contrib.learn.train(monitors)")
def test_with_monitors_of_ones_own_no_summaries_are_written(
    graph, output_dir, counter, summaries, events
):
    """But the monitors' own summaries are on disk when training is over."""
    v1.summary.scalar("loss", counter.loss)
    train(graph, output_dir, counter.train_op, counter.loss, monitors=[Recorder()], max_steps=5)
    assert summaries() == []
    logs = [event for event in events() if event.WhichOneof("what") == "session_log"]
    statuses = [(event.step, event.session_log.status) for event in logs]
    assert (0, v1.SessionLog.START) in statuses
    assert (5, v1.SessionLog.CHECKPOINT) in statuses


@pytest.mark.original_api("tf.contrib.learn.train(output_dir)")
def test_what_is_written_to_the_directory(graph, output_dir, counter, events):
    train(graph, output_dir, counter.train_op, counter.loss, max_steps=2)
    names = set(tf.io.gfile.listdir(output_dir))
    assert {"checkpoint", "graph.pbtxt", "model.ckpt-2.meta", "model.ckpt-2.index"} <= names
    kinds = [event.WhichOneof("what") for event in events()]
    assert {"file_version", "graph_def", "meta_graph_def", "session_log"} <= set(kinds)


# Checkpoints


@pytest.mark.original_api(
    "tf.contrib.learn.train(supervisor_save_model_secs)",
    "tf.contrib.learn.train(keep_checkpoint_max)",
)
@pytest.mark.parametrize(
    ("secs", "keep", "kept"),
    [
        (600, 5, [0, 4]),  # At the start and at the end.
        (None, 5, [4]),
        (0, 5, [4]),
        (1e-9, 2, [3, 4]),
        (1e-9, None, [0, 1, 2, 3, 4]),
    ],
)
def test_checkpoints_come_at_the_start_by_time_and_at_the_end(
    graph, output_dir, counter, secs, keep, kept
):
    train(
        graph,
        output_dir,
        counter.train_op,
        counter.loss,
        supervisor_save_model_secs=secs,
        keep_checkpoint_max=keep,
        max_steps=4,
    )
    paths = tf.io.gfile.glob(f"{output_dir}/model.ckpt-*.index")
    assert sorted(int(path.split("-")[-1].split(".")[0]) for path in paths) == kept
    assert tf.train.latest_checkpoint(output_dir) == f"{output_dir}/model.ckpt-4"


def test_the_checkpoint_saver_monitor_works_in_the_loop(graph, output_dir, counter, tmp_path):
    """In the original it crashed, because its `step_begin` returned no list."""
    other = str(tmp_path / "other")
    monitor = CheckpointSaver(other, save_steps=3)
    train(graph, output_dir, counter.train_op, counter.loss, monitors=[monitor], max_steps=6)
    state = tf.train.get_checkpoint_state(other)
    steps = [int(path.split("-")[-1]) for path in state.all_model_checkpoint_paths]
    assert steps == [1, 4, 6]


def test_stop_at_step_counts_from_the_first_step_of_the_call(graph, output_dir, counter, saved):
    for expected in (3, 6):
        train(
            graph,
            output_dir,
            counter.train_op,
            counter.loss,
            monitors=[StopAtStep(num_steps=3)],
        )
        assert saved() == expected


@pytest.mark.original_api("tf.contrib.learn.train(train_op)", "tf.contrib.learn.train returns")
def test_a_model_learns(graph, output_dir):
    features = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    labels = features @ np.float32([[1.0], [-2.0], [0.5]])
    kernel = v1.get_variable("kernel", [3, 1])
    error = tf.reduce_mean(tf.square(features @ kernel - labels))
    step = v1.train.get_or_create_global_step()
    update = v1.train.AdamOptimizer(0.1).minimize(error, global_step=step)
    first = train(graph, output_dir, update, error, max_steps=1)
    last = train(graph, output_dir, update, error, max_steps=150)
    assert last < 1e-3 < 0.5 < first
