"""`contrib.training.train` in one process: every argument, default, return value and error."""

import ast
import inspect
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.training import train
from paramserve.loops import static_cluster
from paramserve.loops.hooks import CheckpointHook, StepRateHook, SummaryHook

v1 = tf.compat.v1

SEED = Path(__file__).parents[2] / "data/seeds/002_2aa331e79fd0e83a.txt"
GRAPH_MODE_TASK = Path(__file__).with_name("graph_mode_task.py")

LABELS = np.random.default_rng(1).integers(0, 2, 16)
# Feature 2 * label, or the one after it, is set: either tells the label.
FEATURES = np.eye(4, dtype=np.float32)[2 * LABELS + np.random.default_rng(2).integers(0, 2, 16)]


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(7)
        yield graph


@pytest.fixture
def logdir(tmp_path):
    return str(tmp_path / "model")


def stop_at(step):
    return v1.train.StopAtStepHook(last_step=step)


def logistic_loss(normalize=lambda layer: layer):
    kernel = v1.get_variable("kernel", [4, 1], initializer=v1.glorot_uniform_initializer())
    logits = normalize(FEATURES @ kernel) + v1.get_variable("bias", initializer=[0.0])
    labels = LABELS[:, None].astype(np.float32)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))


def batch_norm(layer):
    mean, variance = tf.nn.moments(layer, 0)
    for name, value, start in (("mean", mean, 0.0), ("variance", variance, 1.0)):
        average = v1.get_variable(name, initializer=[start], trainable=False)
        v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, average.assign_sub(0.1 * (average - value)))
    gamma = v1.get_variable("gamma", initializer=[1.0])
    return gamma * (layer - mean) * tf.math.rsqrt(variance + 1e-3)


def make_train_op(loss, learning_rate=1.0, variables=None, multiplier=1.0):
    optimizer = v1.train.GradientDescentOptimizer(learning_rate)
    pairs = optimizer.compute_gradients(loss, variables)
    pairs = [(multiplier * gradient, variable) for gradient, variable in pairs]
    with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
        update = optimizer.apply_gradients(pairs, v1.train.get_or_create_global_step())
    with tf.control_dependencies([update]):
        return tf.identity(loss)


def counting_op():
    """The smallest model: its value is the global step after the step."""
    return v1.train.get_or_create_global_step().assign_add(1)


def saved_step(logdir):
    checkpoint = tf.train.latest_checkpoint(logdir)
    return None if checkpoint is None else tf.train.load_variable(checkpoint, "global_step")


def events(logdir):
    files = sorted(Path(logdir).glob("events.out.tfevents.*"))
    return [event for file in files for event in v1.train.summary_iterator(str(file))]


class Recorder(v1.train.SessionRunHook):
    def __init__(self, name="hook", calls=None):
        self.name = name
        self.calls = [] if calls is None else calls

    def begin(self):
        self.calls.append(f"{self.name} begin")

    def after_create_session(self, session, coord):
        self.calls.append(f"{self.name} session")

    def after_run(self, run_context, run_values):
        self.calls.append(f"{self.name} step")

    def end(self, session):
        self.calls.append(f"{self.name} end")


# Statements of the original's documentation


def test_signature_and_defaults_are_those_of_the_original():
    call = re.search(r"^tf\.contrib\.training\.(train\(.*?^\))", SEED.read_text(), re.M | re.S)
    documented = ast.parse(f"def {call[1]}: pass").body[0].args
    names = [argument.arg for argument in documented.args]
    defaults = [ast.literal_eval(default) for default in documented.defaults]
    ours = inspect.signature(train).parameters.values()
    original = [p for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in original] == names
    assert [p.default for p in original if p.default is not p.empty] == defaults
    assert [p.name for p in ours if p not in original] == ["data_plane"]


def test_docstring_explains_every_argument():
    for name in re.findall(r"<b>`(\w+)`</b>", SEED.read_text().partition("#### Returns")[0]):
        assert re.search(rf"^ +{name}: ", train.__doc__, re.M), name


# Arguments


@pytest.mark.original_api("tf.contrib.training.train raises ValueError: no logdir")
def test_no_logdir_but_something_to_write_is_refused_summaries_first():
    with pytest.raises(ValueError, match=r"^logdir cannot be None when save_summaries_steps"):
        train(None, None)
    with pytest.raises(ValueError, match=r"^logdir cannot be None when save_checkpoint_secs"):
        train(None, None, save_summaries_steps=None)


@pytest.mark.original_api(
    "tf.contrib.training.train(save_checkpoint_secs)",
    "tf.contrib.training.train(save_summaries_steps)",
)
@pytest.mark.parametrize("off", [None, 0])
def test_none_and_0_turn_writing_off(off, logdir):
    op = counting_op()
    assert train(op, None, save_summaries_steps=off, save_checkpoint_secs=off, hooks=[stop_at(2)])
    v1.summary.scalar("x", 1.0)
    train(op, logdir, save_summaries_steps=off, save_checkpoint_secs=off, hooks=[stop_at(2)])
    assert saved_step(logdir) is None
    assert not [event for event in events(logdir) if event.summary.value]


@pytest.mark.original_api("tf.contrib.training.train(logdir)")
def test_empty_logdir_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train(counting_op(), "", hooks=[stop_at(2)]) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.original_api("tf.contrib.training.train(master)")
@pytest.mark.parametrize("master", ["localhost:2222", "http://localhost:2222", "grpc://localhost"])
def test_malformed_master_is_refused(master, logdir):
    with pytest.raises(ValueError, match=re.escape(master.removeprefix("grpc://"))):
        train(counting_op(), logdir, master=master)


def test_logdir_needs_a_global_step(logdir):
    with pytest.raises(RuntimeError, match="Global step should be created to use StepCounterHook"):
        train(tf.constant(1.0), logdir)


def test_without_logdir_no_global_step_is_needed():
    class StopAfterFirstStep(v1.train.SessionRunHook):
        def after_run(self, run_context, run_values):
            run_context.request_stop()

    loss = train(
        {"loss": tf.constant(1.5), "nothing": tf.no_op()},
        None,
        save_summaries_steps=None,
        save_checkpoint_secs=None,
        hooks=[StopAfterFirstStep()],
    )
    assert loss == {"loss": 1.5, "nothing": None}


def test_outside_a_graph_the_error_says_what_to_do(logdir):
    # A new thread is outside every graph, as a program is at its start.
    with ThreadPoolExecutor() as pool:
        call = pool.submit(train, None, logdir)
        with pytest.raises(RuntimeError, match=r"tf\.Graph\(\)\.as_default\(\)"):
            call.result()


@pytest.mark.original_api("tf.contrib.training.train(config)")
def test_config_reaches_the_session(logdir):
    class DeviceCount(v1.train.SessionRunHook):
        def after_create_session(self, session, coord):
            self.value = len(session.list_devices())

    hook = DeviceCount()
    config = v1.ConfigProto(device_count={"CPU": 3})
    train(counting_op(), logdir, config=config, hooks=[stop_at(1), hook])
    assert hook.value == 3


@pytest.mark.original_api("tf.contrib.training.train(run_metadata)")
def test_run_metadata_is_filled(logdir):
    class Trace(v1.train.SessionRunHook):
        def before_run(self, run_context):
            return v1.train.SessionRunArgs(
                None, options=v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE)
            )

    metadata = v1.RunMetadata()
    train(counting_op(), logdir, hooks=[stop_at(1), Trace()], run_metadata=metadata)
    assert metadata.step_stats.dev_stats


# It trains


def train_in_memory(train_op, steps):
    return train(
        train_op, None, hooks=[stop_at(steps)], save_summaries_steps=None, save_checkpoint_secs=None
    )


@pytest.mark.original_api("tf.contrib.training.train(train_op)")
def test_logistic_classifier_learns():
    train_op = make_train_op(logistic_loss())
    assert train_in_memory(train_op, 1) > 0.5
    assert train_in_memory(train_op, 300) < 0.015


def test_batch_norm_classifier_learns_and_its_averages_move(logdir):
    train_op = make_train_op(logistic_loss(batch_norm))
    assert train(train_op, logdir, hooks=[stop_at(300)]) < 0.1
    checkpoint = tf.train.load_checkpoint(logdir)
    assert checkpoint.get_tensor("mean") != [0.0]
    assert checkpoint.get_tensor("variance") != [1.0]


def test_training_a_subset_of_the_variables_leaves_the_others(logdir):
    loss = logistic_loss()
    kernel, _ = v1.trainable_variables()
    weights_only = make_train_op(loss, variables=[kernel])
    everything = make_train_op(loss)
    assert 0.015 < train(weights_only, logdir, hooks=[stop_at(200)]) < 0.05
    assert tf.train.load_variable(logdir, "bias") == [0.0]
    assert train(everything, logdir, hooks=[stop_at(600)]) < 0.015


@pytest.mark.parametrize(("multiplier", "learns"), [(1.0, False), (1000.0, True)])
def test_scaled_gradients_scale_the_update(multiplier, learns):
    train_op = make_train_op(logistic_loss(), learning_rate=0.001, multiplier=multiplier)
    assert bool(train_in_memory(train_op, 10) < 0.5) is learns


@pytest.mark.parametrize("mode", ["disable_eager_execution", "disable_v2_behavior"])
def test_programs_that_switched_the_graph_mode_train_too(mode, logdir):
    command = [sys.executable, str(GRAPH_MODE_TASK), mode, logdir]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1].endswith("model.ckpt-20")


# Hooks


@pytest.mark.original_api(
    "tf.contrib.training.train(hooks)",
    "tf.contrib.training.train(chief_only_hooks)",
)
def test_chief_runs_its_hooks_in_the_originals_order(logdir, monkeypatch):
    calls = []
    for hook in (StepRateHook, SummaryHook, CheckpointHook):
        begin = f"{hook.__name__} begin"
        monkeypatch.setattr(hook, "begin", lambda self, begin=begin: calls.append(begin))
    train(
        counting_op(),
        logdir,
        hooks=[stop_at(1), Recorder("everywhere", calls)],
        chief_only_hooks=[Recorder("chief only", calls)],
    )
    assert [call for call in calls if call.endswith("begin")] == [
        "chief only begin",
        "StepRateHook begin",
        "SummaryHook begin",
        "CheckpointHook begin",
        "everywhere begin",
    ]
    assert calls[-2:] == ["chief only end", "everywhere end"]


@pytest.mark.original_api(
    "tf.contrib.training.train(hooks)",
    "tf.contrib.training.train(chief_only_hooks)",
    "tf.contrib.training.train(is_chief)",
)
def test_other_tasks_run_only_the_hooks_for_all(tmp_path):
    train_op = counting_op()
    init = v1.global_variables_initializer()
    server = v1.train.Server.create_local_server()
    with v1.Session(server.target) as chief:
        chief.run(init)
    calls = []
    last = train(
        train_op,
        None,
        master=server.target,
        is_chief=False,
        hooks=[stop_at(2), Recorder("everywhere", calls)],
        chief_only_hooks=[Recorder("chief only", calls)],
    )
    assert last == 2
    assert calls == [f"everywhere {call}" for call in ("begin", "session", "step", "step", "end")]


@pytest.mark.original_api(
    "tf.contrib.training.train(max_wait_secs)",
    "tf.contrib.training.train(is_chief)",
)
def test_a_lone_worker_gives_up_and_says_what_is_missing():
    v1.get_variable("embedding", [3])
    with pytest.raises(tf.errors.DeadlineExceededError) as caught:
        train(counting_op(), None, is_chief=False, max_wait_secs=1)
    message = caught.value.message
    assert message.startswith("Session was not ready after waiting 1 secs.")
    assert "embedding" in message
    assert "global_step" in message


def test_a_local_init_op_can_make_a_lone_worker_ready():
    train_op = counting_op()
    init = tf.group(v1.global_variables_initializer(), v1.local_variables_initializer())
    v1.add_to_collection(v1.GraphKeys.LOCAL_INIT_OP, init)
    scaffold = v1.train.Scaffold(ready_for_local_init_op=tf.constant([], tf.string))
    assert train(train_op, None, is_chief=False, scaffold=scaffold, hooks=[stop_at(3)]) == 3


# Checkpoints and summaries


@pytest.mark.original_api("tf.contrib.training.train(logdir)")
def test_a_second_call_resumes_where_the_first_ended(logdir, graph):
    train_op = make_train_op(logistic_loss())
    first = train(train_op, logdir, hooks=[stop_at(100)])
    assert saved_step(logdir) == 100
    assert not graph.finalized
    again = train(train_op, logdir, hooks=[stop_at(101)])
    assert again == pytest.approx(first, rel=0.05)
    assert train(train_op, logdir, hooks=[stop_at(300)]) < 0.015
    assert saved_step(logdir) == 300


def test_beyond_its_last_step_a_resumed_call_makes_one_more(logdir):
    train_op = counting_op()
    assert train(train_op, logdir, hooks=[stop_at(5)]) == 5
    assert train(train_op, logdir, hooks=[stop_at(5)]) == 6
    assert train(train_op, logdir, hooks=[v1.train.StopAtStepHook(num_steps=3)]) == 9


def test_a_finalized_graph_stays_finalized(logdir, graph):
    train_op = counting_op()
    train(train_op, logdir, hooks=[stop_at(1)])
    graph.finalize()
    assert train(train_op, logdir, hooks=[stop_at(2)]) == 2
    assert graph.finalized


def test_a_call_that_could_not_begin_leaves_the_graph_usable(logdir, graph):
    train_op = counting_op()
    with pytest.raises(tf.errors.DeadlineExceededError):
        train(train_op, None, is_chief=False, max_wait_secs=0.1)
    assert not graph.finalized
    assert train(train_op, logdir, hooks=[stop_at(2)]) == 2


@pytest.mark.original_api("tf.contrib.training.train(scaffold)")
def test_init_fn_runs_on_a_fresh_start_only(logdir):
    train_op = counting_op()
    calls = []
    scaffold = v1.train.Scaffold(init_fn=lambda *arguments: calls.append(arguments))
    train(train_op, logdir, scaffold=scaffold, hooks=[stop_at(1)])
    [(first, session)] = calls
    assert first is scaffold
    assert isinstance(session, v1.Session)
    train(train_op, logdir, scaffold=scaffold, hooks=[stop_at(2)])
    assert len(calls) == 1


def test_init_fn_may_load_another_models_weights(tmp_path):
    trained = str(tmp_path / "trained")
    train_op = make_train_op(logistic_loss())
    last = train(train_op, trained, hooks=[stop_at(200)])
    warm = v1.train.Saver(v1.trainable_variables())
    checkpoint = tf.train.latest_checkpoint(trained)
    scaffold = v1.train.Scaffold(init_fn=lambda _, session: warm.restore(session, checkpoint))
    new = str(tmp_path / "new")
    assert train(train_op, new, scaffold=scaffold, hooks=[stop_at(1)]) < last
    assert saved_step(new) == 1


def test_local_variables_are_initialized():
    local = v1.get_local_variable("local", initializer=4.0)
    with tf.control_dependencies([counting_op()]):
        train_op = tf.identity(local)
    assert train_in_memory(train_op, 2) == 4.0


def test_variables_that_nothing_initializes_are_named(logdir):
    train_op = counting_op()
    forgotten = v1.get_variable("forgotten", [2])
    scaffold = v1.train.Scaffold(init_op=v1.train.get_global_step().initializer)
    with pytest.raises(RuntimeError, match=r"did not make model ready.*forgotten"):
        train(train_op, logdir, scaffold=scaffold)
    assert forgotten.op.name == "forgotten"


@pytest.mark.original_api(
    "tf.contrib.training.train(logdir)",
    "tf.contrib.training.train(save_summaries_steps)",
    "tf.contrib.training.train(save_checkpoint_secs)",
)
def test_the_chief_writes_graph_summaries_and_checkpoints(logdir):
    train_op = counting_op()
    v1.summary.scalar("answer", 42.0)
    train(train_op, logdir, hooks=[stop_at(210)], save_summaries_steps=100)
    assert (Path(logdir) / "graph.pbtxt").exists()
    assert saved_step(logdir) == 210
    written = events(logdir)
    assert [event for event in written if event.graph_def]
    steps = {}
    for event in written:
        for value in event.summary.value:
            steps.setdefault(value.tag, []).append(event.step)
    # TensorFlow's hook reads the global step while the step runs, so it may be one off each time.
    assert steps["answer"] == [1, pytest.approx(101, abs=1), pytest.approx(201, abs=2)]
    assert len(steps["global_step/sec"]) == 2
    saves = [e.step for e in written if e.session_log.status == v1.SessionLog.CHECKPOINT]
    assert saves == [0, 210]


def test_events_are_on_disk_after_an_error(logdir):
    class Fail(v1.train.SessionRunHook):
        def after_run(self, run_context, run_values):
            raise KeyError("a bug in a hook")

    v1.summary.scalar("answer", 42.0)
    with pytest.raises(KeyError):
        train(counting_op(), logdir, hooks=[Fail()])
    tags = [value.tag for event in events(logdir) for value in event.summary.value]
    assert "answer" in tags


# How it ends


@pytest.mark.original_api("tf.contrib.training.train returns")
def test_end_of_input_is_a_normal_end(logdir):
    batches = v1.data.make_one_shot_iterator(tf.data.Dataset.from_tensor_slices([1.0, 2.0, 3.0]))
    loss = batches.get_next()
    with tf.control_dependencies([loss]):
        step = counting_op()
    with tf.control_dependencies([step]):
        train_op = tf.identity(loss)
    recorder = Recorder()
    assert train(train_op, logdir, hooks=[recorder]) == 3.0
    assert recorder.calls[-1] == "hook end"
    assert saved_step(logdir) == 3


def test_stop_iteration_is_a_normal_end(logdir):
    class Feed(v1.train.SessionRunHook):
        values = iter([10.0, 20.0])

        def before_run(self, run_context):
            return v1.train.SessionRunArgs(None, feed_dict={number: next(self.values)})

    number = v1.placeholder(tf.float32, [])
    with tf.control_dependencies([counting_op()]):
        train_op = tf.identity(number)
    assert train(train_op, logdir, hooks=[Feed()]) == 20.0
    assert saved_step(logdir) == 2


def test_without_a_step_there_is_no_value(logdir):
    class StopAtOnce(v1.train.SessionRunHook):
        def after_create_session(self, session, coord):
            coord.request_stop()

    assert train(counting_op(), logdir, hooks=[StopAtOnce()]) is None


class Failing(v1.train.SessionRunHook):
    """A user's hook that breaks after the third step."""

    def __init__(self):
        self._steps = 0

    def after_run(self, run_context, run_values):
        self._steps += 1
        if self._steps == 3:
            raise KeyError("a mistake in a hook")


def test_a_users_exception_is_raised_and_what_was_trained_is_saved(logdir, graph):
    recorder = Recorder()
    with pytest.raises(KeyError, match="a mistake in a hook"):
        train(counting_op(), logdir, hooks=[recorder, Failing()])
    assert recorder.calls == ["hook begin", "hook session", *["hook step"] * 3]
    assert saved_step(logdir) == 3
    assert not graph.finalized


def test_an_error_without_checkpoints_writes_none(logdir):
    with pytest.raises(KeyError):
        train(counting_op(), logdir, hooks=[Failing()], save_checkpoint_secs=None)
    assert saved_step(logdir) is None


def test_after_a_nan_the_checkpoint_is_there_but_the_next_run_starts_from_an_earlier_one(logdir):
    step = counting_op()
    value = tf.where(step < 3, 1.0, np.nan)
    train_op = tf.debugging.check_numerics(value, "the loss is inf or nan")
    with pytest.raises(tf.errors.InvalidArgumentError, match="the loss is inf or nan"):
        train(train_op, logdir)
    assert Path(logdir, "model.ckpt-3.index").exists()
    assert saved_step(logdir) == 0


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_stuck_queue_runner_does_not_hold_up_the_end(logdir, monkeypatch):
    monkeypatch.setattr(static_cluster, "STOP_GRACE_SECS", 0.5)
    never_filled, filled = tf.queue.FIFOQueue(1, [tf.float32]), tf.queue.FIFOQueue(1, [tf.float32])
    stuck = filled.enqueue(never_filled.dequeue())
    v1.train.add_queue_runner(v1.train.QueueRunner(filled, [stuck]))
    began = time.monotonic()
    assert train(counting_op(), logdir, hooks=[stop_at(1)]) == 1
    assert time.monotonic() - began < 60


def test_a_model_that_grew_between_two_calls_is_saved_and_summarized_whole(logdir):
    step = counting_op()
    train(step, logdir, hooks=[stop_at(1)])
    later = v1.get_variable("later", initializer=[2.0])
    v1.summary.scalar("added", later[0])
    train(step, f"{logdir}-2", hooks=[stop_at(1)])
    assert tf.train.load_variable(f"{logdir}-2", "later").tolist() == [2.0]
    tags = {value.tag for event in events(f"{logdir}-2") for value in event.summary.value}
    assert "added" in tags


def test_summaries_are_written_at_the_first_step_and_every_so_many_from_there(logdir):
    v1.summary.scalar("one", 1.0)
    train(counting_op(), logdir, hooks=[stop_at(11)], save_summaries_steps=3)
    steps = [e.step for e in events(logdir) if any(v.tag == "one" for v in e.summary.value)]
    assert steps == [1, 4, 7, 10]
