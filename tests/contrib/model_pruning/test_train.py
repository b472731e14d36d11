"""`contrib.model_pruning.train` in one process: arguments, files, ends, and a model with masks."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib import model_pruning
from paramserve.contrib.model_pruning import learning, train

v1 = tf.compat.v1

SEED = Path(__file__).parents[2] / "data/seeds/004_3e4396a4f3bff4b7.txt"


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(7)
        yield graph


@pytest.fixture
def logdir(tmp_path):
    return str(tmp_path / "model")


@pytest.fixture
def train_op():
    """A weight that starts at 5; its loss, 25 at first, is a quarter of that in each next step."""
    weight = v1.get_variable("weight", initializer=5.0)
    loss = tf.square(weight)
    step = v1.train.get_or_create_global_step()
    update = v1.train.GradientDescentOptimizer(0.25).minimize(loss, global_step=step)
    with tf.control_dependencies([update]):
        return tf.identity(loss)


@pytest.fixture
def mask_update_op():
    """Counts how often it runs."""
    updates = v1.get_variable("updates", initializer=0, trainable=False)
    return updates.assign_add(1, read_value=False)


def saved(logdir, name="global_step"):
    return tf.train.load_variable(logdir, name)


def saved_steps(logdir):
    """The global steps of all checkpoints that there are, advertised or not."""
    return sorted(int(path.stem.rpartition("-")[2]) for path in Path(logdir).glob("*.index"))


def events(logdir):
    files = sorted(Path(logdir).glob("events.out.tfevents.*"))
    return [event for file in files for event in v1.train.summary_iterator(str(file))]


def tags(logdir):
    return {value.tag for event in events(logdir) for value in event.summary.value}


# Statements of the original's documentation


def documented_call():
    call = re.search(r"^tf\.contrib\.model_pruning\.(train\(.*?^\))", SEED.read_text(), re.M | re.S)
    return ast.parse(f"def {call[1]}: pass").body[0].args


def test_signature_and_defaults_are_those_of_the_original():
    documented = documented_call()
    ours = inspect.signature(train).parameters
    original = [p for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in original] == [argument.arg for argument in documented.args]
    by_name = {"_USE_DEFAULT": learning._USE_DEFAULT, "train_step": learning.train_step}
    expected = [
        by_name[default.id] if isinstance(default, ast.Name) else ast.literal_eval(default)
        for default in documented.defaults
    ]
    assert [p.default for p in original if p.default is not p.empty] == expected
    added = [p.name for p in ours.values() if p.kind is p.KEYWORD_ONLY]
    assert added == ["mask_update_on", "data_plane"]


def test_docstring_explains_every_argument():
    for name in re.findall(r"<b>`(\w+)`</b>", SEED.read_text().partition("#### Returns")[0]):
        assert re.search(rf"^ +{name}: ", train.__doc__, re.M), name


# Refusals, in the original's order


@pytest.mark.original_api("tf.contrib.model_pruning.train raises ValueError: train_op")
def test_a_missing_train_op_is_refused_first():
    with pytest.raises(ValueError, match="train_op cannot be None"):
        train(None, None, None, summary_op=None, number_of_steps=-1)


@pytest.mark.original_api(
    "tf.contrib.model_pruning.train(logdir)",
    "tf.contrib.model_pruning.train raises ValueError: trace_every_n_steps and logdir",
)
def test_without_logdir_nothing_that_needs_one_may_be_given(train_op, mask_update_op):
    needs = {"summary_op": None, "saver": v1.train.Saver(), "trace_every_n_steps": 10}
    while needs:
        first = next(iter(needs))
        with pytest.raises(ValueError, match=f"{first}=.*logdir=None"):
            train(train_op, None, mask_update_op, number_of_steps=-1, **needs)
        del needs[first]


@pytest.mark.original_api(
    "tf.contrib.model_pruning.train raises ValueError: startup_delay_steps and sync_optimizer"
)
@pytest.mark.parametrize("supplied", ["an optimizer", []])
def test_synchronous_workers_cannot_be_delayed(train_op, mask_update_op, supplied):
    if supplied:
        inner = v1.train.GradientDescentOptimizer(0.1)
        supplied = v1.train.SyncReplicasOptimizer(inner, 1)
    with pytest.raises(ValueError, match="startup_delay_steps must be zero when sync_optimizer"):
        train(
            train_op,
            None,
            mask_update_op,
            startup_delay_steps=1,
            sync_optimizer=supplied,
            number_of_steps=-1,
        )


@pytest.mark.original_api("tf.contrib.model_pruning.train raises ValueError: number_of_steps")
@pytest.mark.parametrize("number_of_steps", [-1, 0])
def test_the_number_of_steps_has_to_be_positive(train_op, mask_update_op, number_of_steps):
    with pytest.raises(ValueError, match="must be either None or a positive number"):
        train(train_op, None, mask_update_op, number_of_steps=number_of_steps)


@pytest.mark.original_api("tf.contrib.model_pruning.train(mask_update_op)")
def test_a_missing_mask_update_is_refused_before_training(train_op, logdir):
    with pytest.raises(ValueError, match=r"mask_update_op cannot be None.*contrib\.slim"):
        train(train_op, logdir, None, number_of_steps=1)
    assert not Path(logdir).exists()


@pytest.mark.original_api("tf.contrib.model_pruning.train(sync_optimizer)")
@pytest.mark.parametrize("wrong", [3, [3], ["optimizer"]])
def test_a_sync_optimizer_has_to_be_one(train_op, mask_update_op, wrong):
    with pytest.raises(ValueError, match=r"must be a tf\.train\.SyncReplicasOptimizer"):
        train(train_op, None, mask_update_op, sync_optimizer=wrong, number_of_steps=1)


def test_a_sync_optimizer_has_to_be_used(train_op, mask_update_op):
    idle = v1.train.SyncReplicasOptimizer(v1.train.GradientDescentOptimizer(0.1), 1)
    with pytest.raises(ValueError, match=r"call its minimize\(\)"):
        train(train_op, None, mask_update_op, sync_optimizer=idle, number_of_steps=1)


def test_traces_and_mask_updates_cannot_be_nonsense(train_op, mask_update_op, logdir):
    with pytest.raises(ValueError, match="trace_every_n_steps must be"):
        train(train_op, logdir, mask_update_op, trace_every_n_steps=0)
    with pytest.raises(ValueError, match="mask_update_on='chef'"):
        train(train_op, logdir, mask_update_op, mask_update_on="chef")


# Its result, and its stop conditions


@pytest.mark.original_api(
    "tf.contrib.model_pruning.train returns",
    "tf.contrib.model_pruning.train(train_op)",
    "tf.contrib.model_pruning.train(number_of_steps)",
)
def test_it_trains_to_the_number_of_steps_and_returns_the_last_loss(
    train_op, mask_update_op, logdir
):
    assert train(train_op, logdir, mask_update_op, number_of_steps=3) == pytest.approx(25 / 16)
    assert saved(logdir) == 3
    assert saved_steps(logdir) == [0, 3]


@pytest.mark.original_api("tf.contrib.model_pruning.train(number_of_steps)")
def test_a_further_call_goes_on_and_at_the_limit_makes_no_step(
    graph, train_op, mask_update_op, logdir
):
    train(train_op, logdir, mask_update_op, number_of_steps=3)
    assert train(train_op, logdir, mask_update_op, number_of_steps=3) is None
    assert saved(logdir) == 3
    assert train(train_op, logdir, mask_update_op, number_of_steps=5) == pytest.approx(25 / 4**4)
    assert saved(logdir) == saved(logdir, "updates") == 5
    assert not graph.finalized


@pytest.mark.original_api("tf.contrib.model_pruning.train(global_step)")
def test_the_global_step_may_be_ones_own(mask_update_op, logdir, graph):
    other = v1.train.get_or_create_global_step()
    own = v1.get_variable("own", initializer=tf.constant(10, tf.int64), trainable=False)
    train_op = own.assign_add(1)
    assert train(train_op, logdir, mask_update_op, global_step=own, number_of_steps=12) == 12
    assert saved_steps(logdir) == [10, 12]
    assert (saved(logdir, "own"), saved(logdir)) == (12, 0)
    # The graph is unchanged.
    assert graph.get_collection(v1.GraphKeys.GLOBAL_STEP) == [other]


@pytest.mark.original_api("tf.contrib.model_pruning.train(global_step)")
def test_a_global_step_that_counts_nothing_is_refused(train_op, mask_update_op):
    with pytest.raises(TypeError, match="integer type"):
        train(train_op, None, mask_update_op, global_step=tf.constant(1.0))


@pytest.mark.original_api("tf.contrib.model_pruning.train(global_step)")
def test_without_a_global_step_there_will_be_one(mask_update_op):
    def step_function(session, train_op, global_step, kwargs):
        assert global_step is v1.train.get_global_step()
        return session.run(train_op), True

    assert train(tf.constant(2.0), None, mask_update_op, step_function) == 2.0


@pytest.mark.original_api("tf.contrib.model_pruning.train(local_init_op)")
def test_the_end_of_the_input_is_a_normal_end(mask_update_op, logdir):
    step = v1.train.get_or_create_global_step()
    # It counts in a local variable, which has to be initialized.
    epoch = v1.train.limit_epochs(tf.constant(1.5), num_epochs=300)
    with tf.control_dependencies([epoch]), tf.control_dependencies([step.assign_add(1).op]):
        train_op = tf.identity(epoch)
    assert train(train_op, logdir, mask_update_op, log_every_n_steps=None) == 1.5
    assert tf.train.latest_checkpoint(logdir).endswith("model.ckpt-300")


def test_an_error_leaves_but_what_was_trained_is_saved(train_op, mask_update_op, logdir):
    def step_function(session, train_op, global_step, kwargs):
        if session.run(global_step) == 4:
            raise KeyError("a bug")
        return session.run(train_op), False

    with pytest.raises(KeyError):
        train(train_op, logdir, mask_update_op, step_function)
    assert saved(logdir) == 4


def test_a_loss_that_is_no_number_is_an_error_and_not_resumed_from(mask_update_op, logdir):
    step = v1.train.get_or_create_global_step()
    loss = tf.where(step < 2, 1.0, np.nan)
    with tf.control_dependencies([tf.debugging.check_numerics(loss, "LossTensor is inf or nan")]):
        update = step.assign_add(1, read_value=False)
    with tf.control_dependencies([update]):
        train_op = tf.identity(loss)
    with pytest.raises(tf.errors.InvalidArgumentError, match="LossTensor is inf or nan"):
        train(train_op, logdir, mask_update_op)
    assert saved_steps(logdir) == [0, 2]
    assert saved(logdir) == 0


# Initialization


@pytest.mark.original_api(
    "tf.contrib.model_pruning.train(init_op)", "tf.contrib.model_pruning.train(init_feed_dict)"
)
def test_an_init_op_may_be_given_and_fed(train_op, mask_update_op):
    weight, updates = v1.global_variables()[0], v1.global_variables()[-1]
    start = v1.placeholder(tf.float32, [])
    step = v1.train.get_global_step()
    init_op = tf.group(weight.assign(start), updates.initializer, step.initializer)
    first = train(
        train_op,
        None,
        mask_update_op,
        number_of_steps=1,
        init_op=init_op,
        init_feed_dict={start: 3},
    )
    assert first == 9


@pytest.mark.original_api("tf.contrib.model_pruning.train(init_op)")
def test_without_an_init_op_variables_are_left_and_named(train_op, mask_update_op, logdir):
    with pytest.raises(RuntimeError, match=r"did not make model ready.*weight"):
        train(train_op, logdir, mask_update_op, init_op=None, number_of_steps=1)


@pytest.mark.original_api("tf.contrib.model_pruning.train(init_fn)")
def test_init_fn_runs_after_the_init_op_on_a_fresh_start_only(train_op, mask_update_op, logdir):
    weight = v1.trainable_variables()[0]
    twice = weight.assign(2 * weight)
    calls = []

    def init_fn(session):
        calls.append(type(session))
        session.run(twice)

    assert train(train_op, logdir, mask_update_op, init_fn=init_fn, number_of_steps=1) == 100
    train(train_op, logdir, mask_update_op, init_fn=init_fn, number_of_steps=2)
    [kind] = calls
    assert issubclass(kind, v1.Session)


@pytest.mark.original_api("tf.contrib.model_pruning.train(local_init_op)")
def test_a_local_init_op_may_be_given(mask_update_op):
    local = v1.get_local_variable("local", initializer=4.0)
    step = v1.train.get_or_create_global_step()
    with tf.control_dependencies([step.assign_add(1).op]):
        train_op = tf.identity(local)
    given = local.assign(6.0).op
    assert train(train_op, None, mask_update_op, number_of_steps=1) == 4
    assert train(train_op, None, mask_update_op, number_of_steps=1, local_init_op=given) == 6
    with pytest.raises(RuntimeError, match=r"did not make model ready.*local"):
        train(train_op, None, mask_update_op, number_of_steps=1, local_init_op=None)


@pytest.mark.original_api("tf.contrib.model_pruning.train(ready_op)")
def test_a_ready_op_says_what_is_missing_and_none_takes_all_for_ready(mask_update_op):
    step = v1.train.get_or_create_global_step()
    v1.get_variable("unused", [2])
    init_op = tf.group(step.initializer, v1.global_variables()[0].initializer)
    arguments = {"init_op": init_op, "number_of_steps": 1}
    train_op = step.assign_add(1)
    with pytest.raises(RuntimeError, match="unused"):
        train(train_op, None, mask_update_op, **arguments)
    with pytest.raises(RuntimeError, match="the moon"):
        train(train_op, None, mask_update_op, ready_op=tf.constant(["the moon"]), **arguments)
    assert train(train_op, None, mask_update_op, ready_op=None, **arguments) == 1


def test_0_still_means_the_default(train_op, mask_update_op, logdir):
    v1.summary.scalar("answer", 42.0)
    usual = dict.fromkeys(
        ("train_step_kwargs", "init_op", "local_init_op", "ready_op", "summary_op"), 0
    )
    train(train_op, logdir, mask_update_op, number_of_steps=1, summary_writer=0, **usual)
    assert "answer" in tags(logdir)


# Files


@pytest.mark.original_api("tf.contrib.model_pruning.train(logdir)")
@pytest.mark.parametrize("nowhere", [None, ""])
def test_without_logdir_nothing_is_written(
    train_op, mask_update_op, nowhere, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    v1.summary.scalar("answer", 42.0)
    assert train(train_op, nowhere, mask_update_op, number_of_steps=1) == 25
    assert not list(tmp_path.iterdir())


@pytest.mark.original_api(
    "tf.contrib.model_pruning.train(summary_op)",
    "tf.contrib.model_pruning.train(save_summaries_secs)",
)
def test_summaries_are_written_at_the_first_step_and_then_by_time(train_op, mask_update_op, logdir):
    v1.summary.scalar("answer", 42.0)
    train(train_op, logdir, mask_update_op, number_of_steps=50)
    assert [e.step for e in events(logdir) if e.summary.value and "answer" in str(e)] == [1]


@pytest.mark.original_api(
    "tf.contrib.model_pruning.train(summary_op)",
    "tf.contrib.model_pruning.train(save_summaries_secs)",
)
def test_summaries_may_be_chosen_or_left_out(train_op, mask_update_op, tmp_path):
    v1.summary.scalar("answer", 42.0)
    other = v1.summary.scalar("other", 43.0)
    step = 0
    cases = [
        ("chosen", {"summary_op": other}, {"other"}),
        ("none", {"summary_op": None}, set()),
        ("off", {"save_summaries_secs": 0}, set()),
        ("often", {"save_summaries_secs": 1e-6}, {"answer", "other", "global_step/sec"}),
    ]
    for name, arguments, expected in cases:
        step += 5
        logdir = str(tmp_path / name)
        train(train_op, logdir, mask_update_op, number_of_steps=step, **arguments)
        assert tags(logdir) == expected


@pytest.mark.original_api("tf.contrib.model_pruning.train(summary_writer)")
def test_summaries_may_go_elsewhere(train_op, mask_update_op, tmp_path):
    v1.summary.scalar("answer", 42.0)
    with v1.summary.FileWriter(str(tmp_path / "elsewhere")) as writer:
        arguments = {"number_of_steps": 2, "save_summaries_secs": 1e-6}
        train(train_op, str(tmp_path / "a"), mask_update_op, summary_writer=writer, **arguments)
    assert "answer" in tags(tmp_path / "elsewhere")
    assert not tags(tmp_path / "a")
    train(train_op, str(tmp_path / "b"), mask_update_op, summary_writer=None, **arguments)
    assert not tags(tmp_path / "b")


def test_the_events_tell_of_the_session_and_its_checkpoints(train_op, mask_update_op, logdir):
    train(train_op, logdir, mask_update_op, number_of_steps=2)
    log = [(e.session_log.status, e.step) for e in events(logdir) if e.HasField("session_log")]
    status = v1.SessionLog
    assert log[0] == (status.START, 0)
    assert sorted(log[1:]) == [(status.STOP, 2), (status.CHECKPOINT, 0), (status.CHECKPOINT, 2)]
    assert (Path(logdir) / "graph.pbtxt").exists()


@pytest.mark.original_api("tf.contrib.model_pruning.train(save_interval_secs)")
def test_checkpoints_by_time_and_at_the_end(train_op, mask_update_op, tmp_path):
    cases = [("never", None, [3]), ("0", 0, [3]), ("always", 1e-6, [0, 1, 2, 3])]
    for name, secs, expected in cases:
        logdir = str(tmp_path / name)
        train(train_op, logdir, mask_update_op, number_of_steps=3, save_interval_secs=secs)
        assert saved_steps(logdir) == expected


@pytest.mark.original_api("tf.contrib.model_pruning.train(saver)")
def test_a_saver_of_ones_own_saves_what_it_likes(train_op, mask_update_op, logdir):
    saver = v1.train.Saver([v1.train.get_global_step()], max_to_keep=1)
    train(train_op, logdir, mask_update_op, number_of_steps=3, saver=saver)
    assert [name for name, _ in tf.train.list_variables(logdir)] == ["global_step"]
    assert saved_steps(logdir) == [3]


# Where it runs


@pytest.mark.original_api("tf.contrib.model_pruning.train(graph)")
def test_a_graph_may_be_given(train_op, mask_update_op, graph):
    with tf.Graph().as_default():
        loss = train(train_op, None, mask_update_op, graph=graph, number_of_steps=1)
    assert loss == 25


@pytest.mark.original_api("tf.contrib.model_pruning.train(session_config)")
def test_the_session_is_configured(train_op, mask_update_op):
    devices = []

    def step_function(session, train_op, global_step, kwargs):
        devices.extend(session.list_devices())
        return session.run(train_op), True

    config = v1.ConfigProto(device_count={"CPU": 3})
    train(train_op, None, mask_update_op, step_function, session_config=config)
    assert len(devices) == 3


@pytest.mark.original_api(
    "tf.contrib.model_pruning.train(master)", "tf.contrib.model_pruning.train(is_chief)"
)
def test_a_worker_trains_what_its_chief_has_made_ready(train_op, mask_update_op, logdir):
    """On one server, with the same variables; the worker neither initializes nor saves."""
    server = v1.train.Server.create_local_server()
    assert train(train_op, None, mask_update_op, master=server.target, number_of_steps=2) == 25 / 4
    loss = train(
        train_op,
        logdir,
        mask_update_op,
        master=server.target,
        is_chief=False,
        number_of_steps=4,
        init_op=None,
    )
    assert loss == 25 / 4**3
    assert not Path(logdir).exists()
    with pytest.raises(ValueError, match="tcp"):
        train(train_op, None, mask_update_op, master="tcp://here:1")


# With masks


@pytest.mark.original_api("tf.contrib.model_pruning.train(mask_update_op)")
def test_a_masked_model_gets_sparse_and_learns(logdir):
    generator = np.random.default_rng(3)
    inputs = generator.normal(size=(64, 20)).astype(np.float32)
    # Half of the inputs tell nothing.
    truth = (generator.normal(size=20) * (np.arange(20) % 2)).astype(np.float32)
    kernel = v1.get_variable("kernel", [20, 1])
    masked = model_pruning.apply_mask(kernel)
    loss = tf.reduce_mean(tf.square(inputs @ masked - (inputs @ truth)[:, None]))
    step = v1.train.get_or_create_global_step()
    update = v1.train.AdamOptimizer(0.05).minimize(loss, global_step=step)
    with tf.control_dependencies([update]):
        train_op = tf.identity(loss)
    hparams = model_pruning.get_pruning_hparams().parse(
        "pruning_frequency=5,sparsity_function_end_step=100,target_sparsity=0.5"
    )
    mask_update_op = model_pruning.Pruning(hparams, step).conditional_mask_update_op()
    assert train(train_op, logdir, mask_update_op, number_of_steps=200) < 0.01
    mask = saved(logdir, "mask")
    assert mask.mean() == 0.5
    assert (mask.ravel() == np.arange(20) % 2).all()
    assert saved(logdir, "model_pruning/last_mask_update_step") == 200
