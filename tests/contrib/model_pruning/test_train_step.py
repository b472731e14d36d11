"""The steps of `contrib.model_pruning.train`: step functions, their arguments, masks, traces."""

import json
import logging
import threading
from pathlib import Path

import pytest
import tensorflow as tf

from paramserve.cluster.session import BoundedCloseSession
from paramserve.contrib.model_pruning import train
from paramserve.contrib.model_pruning.learning import train_step

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def graph(use_resource):
    """Runs each test twice: with resource variables, and with ref variables."""
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture
def logdir(tmp_path):
    return str(tmp_path / "model")


@pytest.fixture
def global_step(graph):
    return v1.train.get_or_create_global_step()


@pytest.fixture
def train_op(global_step):
    """Its value is the number of the step."""
    with tf.control_dependencies([v1.assign_add(global_step, 1)]):
        return tf.cast(tf.identity(global_step), tf.float32)


@pytest.fixture
def updates(graph):
    return v1.get_variable("updates", initializer=0, trainable=False)


@pytest.fixture
def mask_update_op(updates):
    return v1.assign_add(updates, 1)


@pytest.fixture
def lines(caplog):
    """The log lines so far that start like this."""
    caplog.set_level(logging.INFO, "paramserve")
    return lambda start: [line for line in caplog.messages if line.startswith(start)]


def saved(logdir, name="global_step"):
    return tf.train.load_variable(logdir, name)


def run_metadata_tags(logdir):
    [file] = Path(logdir).glob("events.out.tfevents.*")
    return [
        event.tagged_run_metadata.tag
        for event in v1.train.summary_iterator(str(file))
        if event.HasField("tagged_run_metadata")
    ]


# The default step function


@pytest.mark.original_api("tf.contrib.model_pruning.train(train_step_kwargs)")
def test_the_default_arguments_are_two_booleans(train_op, mask_update_op, global_step):
    seen = []

    def step_function(session, op, step, kwargs):
        assert op is train_op
        assert step is global_step
        loss = session.run(op)
        seen.append((loss, *session.run([kwargs["should_log"], kwargs["should_stop"]])))
        return loss, seen[-1][-1]

    def names(session, op, step, kwargs):
        assert kwargs["should_stop"].name.endswith("/GreaterEqual:0")
        assert kwargs["should_log"].name.endswith("/Equal:0")
        assert sorted(kwargs) == ["should_log", "should_stop", "summary_writer"]
        assert kwargs["summary_writer"] is None
        return session.run(op), True

    train(train_op, None, mask_update_op, step_function, log_every_n_steps=2, number_of_steps=3)
    assert seen == [(1, False, False), (2, True, False), (3, False, True)]
    train(train_op, None, mask_update_op, names, number_of_steps=3)


@pytest.mark.original_api("tf.contrib.model_pruning.train(train_step_kwargs)")
def test_arguments_follow_what_was_asked_for(train_op, mask_update_op, logdir):
    seen = []

    def step_function(session, op, step, kwargs):
        seen.append(kwargs)
        return session.run(op), True

    train(train_op, logdir, mask_update_op, step_function, log_every_n_steps=0)
    assert sorted(seen[-1]) == ["should_stop", "summary_writer"]
    assert isinstance(seen[-1]["summary_writer"], v1.summary.FileWriter)
    train(train_op, logdir, mask_update_op, step_function, trace_every_n_steps=3)
    assert seen[-1]["logdir"] == logdir
    assert seen[-1]["should_trace"].dtype is tf.bool
    train(train_op, logdir, mask_update_op, step_function, summary_writer=None)
    assert "summary_writer" not in seen[-1]


@pytest.mark.original_api("tf.contrib.model_pruning.train(log_every_n_steps)")
def test_the_loss_is_logged_every_few_steps(train_op, mask_update_op, lines):
    train(train_op, None, mask_update_op, log_every_n_steps=2, number_of_steps=5)
    [first, second] = lines("global step")
    assert first.startswith("global step 2: loss = 2.0000 (")
    assert first.endswith(" sec/step)")
    assert second.startswith("global step 4: loss = 4.0000 (")


@pytest.mark.original_api("tf.contrib.model_pruning.train(log_every_n_steps)")
@pytest.mark.parametrize("never", [0, -1, None])
def test_logging_may_be_off(train_op, mask_update_op, lines, never):
    train(train_op, None, mask_update_op, log_every_n_steps=never, number_of_steps=2)
    assert not lines("global step")


def test_what_a_worker_did_not_see_is_logged_at_the_next_step(global_step, mask_update_op, lines):
    """As when another worker makes every other step."""
    with tf.control_dependencies([v1.assign_add(global_step, 2)]):
        train_op = tf.constant(1.0)
    train(train_op, None, mask_update_op, log_every_n_steps=5, number_of_steps=16)
    assert [line.partition(":")[0] for line in lines("global step")] == [
        "global step 6",
        "global step 10",
        "global step 16",
    ]


def test_the_log_tells_the_story(train_op, mask_update_op, logdir, lines):
    train(train_op, logdir, mask_update_op, number_of_steps=1)
    for line in ("Starting Session.", "Stopping Training.", "Finished training! Saving model"):
        assert len(lines(line)) == 1


@pytest.mark.original_api("tf.contrib.model_pruning.train(trace_every_n_steps)")
def test_traces_are_named_by_the_step_after(train_op, mask_update_op, logdir):
    train(train_op, logdir, mask_update_op, number_of_steps=300, trace_every_n_steps=100)
    files = sorted(Path(logdir).glob("tf_trace-*.json"))
    assert [file.name for file in files] == [f"tf_trace-{step}.json" for step in (1, 101, 201)]
    for file in files:
        assert json.loads(file.read_text())["traceEvents"]
    assert run_metadata_tags(logdir) == [f"run_metadata-{step}" for step in (1, 101, 201)]


@pytest.mark.original_api("tf.contrib.model_pruning.train(trace_every_n_steps)")
def test_none_writes_no_traces(train_op, mask_update_op, logdir):
    train(train_op, logdir, mask_update_op, number_of_steps=3)
    assert not list(Path(logdir).glob("tf_trace-*"))
    assert not run_metadata_tags(logdir)


def test_a_step_of_the_loop_is_one_run_and_the_masks(train_op, mask_update_op, monkeypatch):
    runs = []
    run = BoundedCloseSession.run

    def counting_run(self, *args, **kwargs):
        runs.append(self)
        return run(self, *args, **kwargs)

    monkeypatch.setattr(BoundedCloseSession, "run", counting_run)
    train(train_op, None, mask_update_op, number_of_steps=10)
    first = len(runs)
    train(train_op, None, mask_update_op, number_of_steps=30)
    assert len(runs) - first == first + 20 * 2


def test_the_step_function_works_in_any_session(train_op, global_step, logdir, lines):
    kwargs = {
        "should_stop": tf.greater_equal(global_step, 2),
        "should_log": tf.equal(global_step, 1),
        "should_trace": tf.equal(global_step, 1),
        "logdir": logdir,
    }
    tf.io.gfile.makedirs(logdir)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        assert train_step(session, train_op, global_step, kwargs) == (1.0, False)
        assert train_step(session, train_op, global_step, kwargs) == (2.0, True)
        assert train_step(session, train_op, global_step, {}) == (3.0, False)
        del kwargs["logdir"]
        with pytest.raises(ValueError, match="logdir must be present"):
            train_step(session, train_op, global_step, kwargs)
    assert len(lines("global step 1: loss = 1.0000")) == len(lines("global step")) == 1
    assert [file.name for file in Path(logdir).iterdir()] == ["tf_trace-2.json"]


# Masks


@pytest.mark.original_api("tf.contrib.model_pruning.train(mask_update_op)")
def test_masks_are_updated_after_every_step_the_last_one_included(
    train_op, updates, mask_update_op, logdir
):
    seen = []

    def step_function(session, op, step, kwargs):
        seen.append(int(session.run(updates)))
        return train_step(session, op, step, kwargs)

    train(train_op, logdir, mask_update_op, step_function, number_of_steps=12)
    assert seen == list(range(12))
    assert saved(logdir, "updates") == 12


def test_masks_are_not_updated_after_a_step_that_failed(train_op, mask_update_op, logdir):
    def step_function(session, op, step, kwargs):
        session.run(op)
        if session.run(step) == 3:
            raise tf.errors.OutOfRangeError(None, None, "no more")
        return 0.0, False

    train(train_op, logdir, mask_update_op, step_function)
    assert (saved(logdir), saved(logdir, "updates")) == (3, 2)


@pytest.mark.parametrize(("where", "expected"), [("all", 5), ("chief", 2)])
def test_masks_may_be_left_to_the_chief(train_op, updates, mask_update_op, where, expected):
    server = v1.train.Server.create_local_server()
    place = {"master": server.target, "mask_update_on": where}
    train(train_op, None, mask_update_op, number_of_steps=2, **place)
    train(train_op, None, mask_update_op, number_of_steps=5, is_chief=False, **place)
    with v1.Session(server.target) as session:
        assert session.run(updates) == expected


# Step functions of one's own


@pytest.mark.original_api(
    "tf.contrib.model_pruning.train(train_step_fn)",
    "tf.contrib.model_pruning.train(train_step_kwargs)",
)
def test_a_step_function_gets_its_own_arguments(train_op, mask_update_op, logdir, lines):
    given = {"factor": 10}

    def step_function(session, op, step, kwargs):
        assert kwargs is given
        loss, should_stop = train_step(session, op, step, kwargs)
        assert not should_stop
        return kwargs["factor"] * loss, should_stop

    # The number of steps holds although there is no "should_stop".
    loss = train(train_op, logdir, mask_update_op, step_function, given, number_of_steps=3)
    assert loss == 30
    assert sorted(given) == ["factor", "summary_writer"]
    assert isinstance(given["summary_writer"], v1.summary.FileWriter)
    assert not lines("global step")


@pytest.mark.original_api("tf.contrib.model_pruning.train(train_step_fn)")
def test_a_step_function_says_when_to_stop(train_op, mask_update_op, logdir):
    def step_function(session, op, step, kwargs):
        loss = session.run(op)
        return loss, loss == 4

    assert train(train_op, logdir, mask_update_op, step_function, number_of_steps=9) == 4
    assert saved(logdir) == 4


@pytest.mark.original_api("tf.contrib.model_pruning.train(train_step_fn)")
def test_a_step_function_may_use_the_session_as_it_likes(
    train_op, global_step, mask_update_op, logdir, graph
):
    saver = v1.train.Saver()
    grouped = tf.group(train_op)
    seen = []

    def step_function(session, op, step, kwargs):
        assert isinstance(session, v1.Session)
        assert session.graph is graph
        with session.as_default():
            assert v1.get_default_session() is session
            seen.append(int(step.eval()))
        session.run([grouped, {"the same": op.name}])
        session.run(op)
        saver.save(session, f"{logdir}/mine", session.run(step))
        return session.make_callable(op)(), False

    # Three steps at a time.
    assert train(train_op, logdir, mask_update_op, step_function, number_of_steps=7) == 9
    assert seen == [0, 3, 6]
    assert Path(logdir, "mine-8.index").exists()
    assert saved(logdir) == 9


def test_a_step_that_no_hook_saw_counts_all_the_same(train_op, global_step, mask_update_op):
    update = v1.assign_add(global_step, 1)

    def step_function(session, op, step, kwargs):
        session.run(update)
        return 1.0, False

    assert train(train_op, None, mask_update_op, step_function, number_of_steps=4) == 1.0


def test_a_step_function_has_to_return_a_pair(train_op, mask_update_op):
    with pytest.raises(TypeError, match=r"returned .*expected a pair"):
        train(train_op, None, mask_update_op, lambda session, op, step, kwargs: session.run(op))


def test_the_end_of_an_iterator_is_a_normal_end(train_op, mask_update_op, logdir):
    batches = iter([1.0, 2.0])

    def step_function(session, op, step, kwargs):
        batch = next(batches)
        session.run(op)
        return batch, False

    assert train(train_op, logdir, mask_update_op, step_function) == 2.0
    assert saved(logdir) == 2


@pytest.mark.parametrize("error", [tf.errors.AbortedError, tf.errors.UnavailableError])
def test_a_lost_session_is_replaced(train_op, mask_update_op, logdir, lines, error):
    """With a checkpoint it continues from there, without one from the start."""
    for directory, first_steps in ((logdir, [0, 1, 2, 0, 1, 2, 3]), (None, [0, 1, 2, 0, 1, 2, 3])):
        seen = []

        def step_function(session, op, step, kwargs, seen=seen):
            seen.append(int(session.run(step)))
            if len(seen) == 3:
                raise error(None, None, "a parameter server is gone")
            return session.run(op), False

        assert train(train_op, directory, mask_update_op, step_function, number_of_steps=4) == 4
        assert seen == first_steps
    assert len(lines("Retrying training!")) == 2


# Tasks that are not the chief


@pytest.mark.original_api("tf.contrib.model_pruning.train(startup_delay_steps)")
def test_a_delayed_worker_begins_at_its_step(train_op, global_step, mask_update_op, graph, lines):
    server = v1.train.Server.create_local_server()
    jump = v1.assign(global_step, tf.constant(7, tf.int64))
    init = v1.global_variables_initializer()
    seen, losses = [], []

    def step_function(session, op, step, kwargs):
        seen.append(int(session.run(step)))
        return train_step(session, op, step, kwargs)

    def run_worker():
        losses.append(
            train(
                train_op,
                None,
                mask_update_op,
                step_function,
                graph=graph,
                master=server.target,
                is_chief=False,
                startup_delay_steps=5,
                number_of_steps=9,
            )
        )

    with v1.Session(server.target) as session:
        session.run(init)
        worker = threading.Thread(target=run_worker)
        worker.start()
        worker.join(1.0)
        assert not seen
        session.run(jump)
        worker.join(60)
    assert seen == [7, 8]
    assert losses == [9]


@pytest.mark.original_api("tf.contrib.model_pruning.train(startup_delay_steps)")
def test_the_chief_is_not_delayed_and_nobody_waits_for_more_than_there_will_be(
    train_op, mask_update_op
):
    server = v1.train.Server.create_local_server()
    place = {"master": server.target, "startup_delay_steps": 100, "number_of_steps": 2}
    assert train(train_op, None, mask_update_op, **place) == 2
    assert train(train_op, None, mask_update_op, is_chief=False, **place) is None
