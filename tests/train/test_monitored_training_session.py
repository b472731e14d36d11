"""`MonitoredTrainingSession`: the files of a chief, the part of another task, both ends."""

import pytest
import tensorflow as tf

from paramserve import train

v1 = tf.compat.v1

pytestmark = pytest.mark.original_api("tf.train.MonitoredTrainingSession")


@pytest.fixture
def step_op():
    return train.get_or_create_global_step().assign_add(1)


class Recorder(train.SessionRunHook):
    def __init__(self, name="hook", calls=None):
        self.name = name
        self.calls = [] if calls is None else calls
        self.sessions = []

    def begin(self):
        self.calls.append(f"{self.name} begin")

    def after_create_session(self, session, coord):
        self.sessions.append(session)
        self.calls.append(f"{self.name} session")

    def after_run(self, run_context, run_values):
        self.calls.append(f"{self.name} step")

    def end(self, session):
        self.calls.append(f"{self.name} end")


def run_and_fail(session, step_op):
    session.run(step_op)
    raise KeyError("a bug")


def run(step_op, last_step, **arguments):
    hooks = [*arguments.pop("hooks", ()), train.StopAtStepHook(last_step=last_step)]
    with train.MonitoredTrainingSession(hooks=hooks, **arguments) as session:
        while not session.should_stop():
            session.run(step_op)


def saves(events, directory):
    log = v1.SessionLog.CHECKPOINT
    return [event.step for event in events(directory) if event.session_log.status == log]


def test_it_writes_checkpoints_summaries_and_the_graph(
    step_op, logdir, events, summaries, tmp_path
):
    v1.summary.scalar("answer", 42.0)
    run(
        step_op,
        7,
        checkpoint_dir=logdir,
        save_checkpoint_steps=3,
        save_summaries_steps=2,
        log_step_count_steps=5,
    )
    assert train.load_variable(logdir, "global_step") == 7
    assert saves(events, logdir) == [0, 3, 6, 7]
    written = summaries(logdir)
    assert len(written["answer"]) in (3, 4)
    assert len(written["global_step/sec"]) == 1
    assert (tmp_path / "model/graph.pbtxt").exists()
    assert (tmp_path / "model/model.ckpt-7.meta").exists()


def test_it_resumes(step_op, logdir):
    run(step_op, 3, checkpoint_dir=logdir)
    run(step_op, 5, checkpoint_dir=logdir)
    assert train.load_variable(logdir, "global_step") == 5


def test_by_default_it_saves_by_time_and_summarizes_every_100_steps(
    step_op, logdir, summaries, events
):
    v1.summary.scalar("answer", 42.0)
    run(step_op, 150, checkpoint_dir=logdir)
    assert saves(events, logdir) == [0, 150]
    assert summaries(logdir)["answer"] == [1, pytest.approx(101, abs=1)]


@pytest.mark.parametrize("off", [None, 0])
def test_what_is_off_is_not_written(step_op, logdir, summaries, off):
    v1.summary.scalar("answer", 42.0)
    run(
        step_op,
        150,
        checkpoint_dir=logdir,
        save_checkpoint_secs=off,
        save_summaries_steps=off,
        log_step_count_steps=off,
    )
    assert train.latest_checkpoint(logdir) is None
    assert not summaries(logdir)


def test_summaries_may_go_elsewhere_and_by_time_and_no_graph(step_op, logdir, summaries, tmp_path):
    v1.summary.scalar("answer", 42.0)
    elsewhere = str(tmp_path / "elsewhere")
    run(
        step_op,
        3,
        checkpoint_dir=logdir,
        summary_dir=elsewhere,
        save_summaries_secs=1000,
        save_graph_def=False,
    )
    assert summaries(elsewhere)["answer"] == [1]
    assert "answer" not in summaries(logdir)
    assert not (tmp_path / "model/graph.pbtxt").exists()
    assert not (tmp_path / "model/model.ckpt-3.meta").exists()


def test_the_chiefs_own_hooks_come_first(step_op, logdir):
    calls = []
    run(
        step_op,
        1,
        checkpoint_dir=logdir,
        hooks=[Recorder("all", calls)],
        chief_only_hooks=[Recorder("chief", calls)],
    )
    assert calls[:2] == ["chief begin", "all begin"]


def test_another_task_waits_for_the_chief_and_runs_only_its_hooks(cluster, logdir):
    def build():
        with v1.device(train.replica_device_setter(cluster=cluster.spec)):
            return train.get_or_create_global_step().assign_add(1)

    step_op = build()
    with pytest.raises(tf.errors.DeadlineExceededError, match="global_step"):
        train.MonitoredTrainingSession(cluster.worker.target, is_chief=False, max_wait_secs=0.2)
    with tf.Graph().as_default():
        chiefs_op = build()
        chief = train.MonitoredTrainingSession(cluster.worker.target)
    calls = []
    run(
        step_op,
        2,
        master=cluster.ps.target,
        is_chief=False,
        checkpoint_dir=logdir,
        hooks=[Recorder("all", calls)],
        chief_only_hooks=[Recorder("chief", calls)],
    )
    assert chief.run(chiefs_op) == 3
    chief.close()
    assert calls == [f"all {call}" for call in ("begin", "session", "step", "step", "end")]
    assert train.latest_checkpoint(logdir) is None


def test_events_are_on_disk_after_an_error(step_op, logdir, summaries):
    v1.summary.scalar("answer", 42.0)
    with (
        pytest.raises(KeyError),
        train.MonitoredTrainingSession(checkpoint_dir=logdir) as session,
    ):
        run_and_fail(session, step_op)
    assert summaries(logdir)["answer"] == [1]


def test_scaffold_and_config_reach_the_session(step_op):
    scaffold = train.Scaffold(init_fn=lambda _, session: session.run(step_op))
    config = v1.ConfigProto(device_count={"CPU": 3})
    recorder = Recorder()
    with train.MonitoredTrainingSession(
        scaffold=scaffold, config=config, hooks=[recorder]
    ) as session:
        assert session.run(step_op) == 2
        assert len(recorder.sessions[0].list_devices()) == 3


def test_a_directory_needs_a_global_step(logdir, graph):
    tf.constant(1.0)
    with pytest.raises(RuntimeError, match="Global step should be created"):
        train.MonitoredTrainingSession(checkpoint_dir=logdir)
    assert not graph.finalized


def test_a_global_step_of_the_users_is_found_by_its_name(logdir):
    step = v1.get_variable("global_step", initializer=5, use_resource=True)
    run(step.assign_add(1), 7, checkpoint_dir=logdir)
    assert train.load_variable(logdir, "global_step") == 7


def updated_in_a_branch(optimizer, loss, step):
    return tf.cond(
        tf.equal(step % 2, 0),
        lambda: tf.group(optimizer.minimize(loss, step)),
        lambda: tf.group(step.assign_add(1)),
    )


def updated_in_a_loop(optimizer, loss, step):
    pairs = optimizer.compute_gradients(loss)

    def body(i):
        with tf.control_dependencies([optimizer.apply_gradients(pairs, step)]):
            return i + 1

    return tf.while_loop(lambda i: i < 2, body, [tf.constant(0)])


def updated_if_the_scaled_gradients_are_finite(optimizer, loss, step):
    optimizer = v1.mixed_precision.MixedPrecisionLossScaleOptimizer(optimizer, "dynamic")
    return optimizer.minimize(loss, step)


@pytest.mark.parametrize(
    "update",
    [updated_in_a_branch, updated_in_a_loop, updated_if_the_scaled_gradients_are_finite],
    ids=lambda update: update.__name__,
)
def test_updates_in_functions_train_as_in_the_original(cluster, update):
    """Such an op stands in the collection `TRAIN_OP`, and no session can run it."""
    found = []
    for module in (train, v1.train):
        v1.Session.reset(cluster.worker.target)
        with tf.Graph().as_default():
            with v1.device(train.replica_device_setter(cluster=cluster.spec)):
                weight = v1.get_variable("weight", initializer=[1.0, 2.0])
                step = v1.train.get_or_create_global_step()
                loss = tf.reduce_sum(tf.sin(weight))
                train_op = update(v1.train.AdamOptimizer(0.1), loss, step)
            with module.MonitoredTrainingSession(cluster.worker.target) as session:
                for _ in range(4):
                    session.run(train_op)
                found.append(session.run(weight).tolist())
    assert found[0] == found[1] != [1.0, 2.0]


def test_a_summary_in_a_branch_is_left_out(step_op, logdir, summaries, caplog):
    def branch():
        v1.summary.scalar("inside", 1.0)
        return tf.constant(1.0)

    v1.summary.scalar("outside", tf.cond(step_op > 0, branch, lambda: tf.constant(0.0)))
    run(step_op, 3, checkpoint_dir=logdir, save_summaries_steps=1)
    assert "outside" in summaries(logdir)
    assert "inside:0' in the collection summaries: in a branch" in caplog.text
