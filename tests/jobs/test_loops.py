"""The three loops in the service, whose chief is a process of its own and makes no steps."""

import pytest
import tensorflow as tf

from paramserve import Job, JobFailed
from support.waiting import until

from .conftest import MODELS, find_chief_or_none, result_of, status_of, step_of

LOOPS = f"{MODELS / 'loops.py'}:build"


@pytest.fixture
def notes(tmp_path):
    """Returns the notes of each process, by its role and index."""
    folder = tmp_path / "notes"
    folder.mkdir()

    def read():
        return {path.name: path.read_text().splitlines() for path in folder.iterdir()}

    read.folder = str(folder)
    return read


@pytest.fixture
def run(logdir, notes):
    """Runs a job with two workers in the test's log directory."""

    def run(loop, *, steps, sync, fail=-1, slow=0):
        numbers = {"steps": str(steps), "fail": str(fail), "slow": str(slow)}
        params = {"loop": loop, "notes": notes.folder, **numbers}
        job = Job(
            LOOPS,
            logdir=str(logdir),
            launcher="process",
            num_ps=2,
            num_workers=2,
            sync=sync,
            params=params,
        )
        return job.run()

    return run


def summaries(logdir, tag):
    """The steps at which the events have a value of a summary."""
    return [
        event.step
        for path in sorted(logdir.glob("events.*"))
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag == tag
    ]


def test_the_learn_loop_counts_its_steps_from_the_checkpoint(run, logdir, notes):
    first = run("learn", steps=40, sync=True)
    assert (first.global_step, first.examples, first.reason) == (40, 40 * 2 * 8, "max_steps")
    assert notes()["chief-0"] == ["init_fn"]
    # The first worker runs the chief's monitors as well; all of them end on both.
    assert notes()["worker-0"] == ["begin 40", "begin 40", "end", "end"]
    assert notes()["worker-1"] == ["begin 40", "end"]

    # Slow, so that both workers are there before one of them has made all steps.
    second = run("learn", steps=30, sync=False, slow=0.1)
    assert 70 <= second.global_step <= 71
    assert notes()["chief-0"] == ["init_fn"]
    assert notes()["worker-1"][2:] == ["begin 70", "end"]
    weights = tf.train.load_variable(second.checkpoint, "weights")
    assert weights == pytest.approx([4.0, 0.1, -3.0, 0.2], abs=1.0)


@pytest.mark.faults
def test_the_pruning_loop_prunes_as_scheduled_and_resumes(run, logdir, notes):
    first = run("model_pruning", steps=60, sync=True)
    assert (first.global_step, first.examples) == (60, 60 * 2 * 8)
    checkpoint = tf.train.load_checkpoint(first.checkpoint)
    assert checkpoint.get_tensor("mask").tolist() == [1.0, 0.0, 1.0, 0.0]
    assert checkpoint.get_tensor("model_pruning/last_mask_update_step") >= 55
    # By time, not by steps, and not in each step.
    assert len(summaries(logdir, "squared_error")) >= 2
    assert summaries(logdir, "global_step/sec")

    second = run("model_pruning", steps=90, sync=False)
    assert 90 <= second.global_step <= 91
    assert notes()["chief-0"] == ["init_fn"]
    assert run("model_pruning", steps=90, sync=False).global_step == second.global_step


def test_the_training_loop_takes_its_scaffold_and_hooks(run, logdir, notes):
    result = run("training", steps=30, sync=False)
    assert 30 <= result.global_step <= 33
    assert notes() == {
        "chief-0": ["init_fn"],
        "worker-0": ["the chief's hook", "every task's hook"],
        "worker-1": ["every task's hook"],
    }
    # In the first step that the worker who writes them made, and ten later.
    assert len(summaries(logdir, "squared_error")) >= 1


@pytest.mark.parametrize(
    ("loop", "mode"),
    [
        ("learn", "--sync"),
        pytest.param("model_pruning", "--async", marks=pytest.mark.faults),
    ],
)
def test_a_lost_parameter_server_is_replaced_under_each_loop(start, logdir, notes, loop, mode):
    params = {"loop": loop, "notes": notes.folder, "steps": 200, "slow": 0.02}
    command = start(
        *("run", LOOPS, "--launcher", "process", "--ps", 2, "--workers", 2, mode),
        *("--logdir", logdir, "--lease-secs", 3),
        *(word for name, value in params.items() for word in ("--param", f"{name}={value}")),
    )
    address = until(lambda: find_chief_or_none(logdir))
    until(lambda: step_of(address) >= 60)

    command.children()["ps-1"].kill()
    until(lambda: getattr(status_of(address), "generation", 1) == 2, "a new generation")

    assert command.wait() == 0
    # The limit is where it was, and what has begun is not begun again.
    assert 200 <= result_of(logdir)["global_step"] <= 201
    assert notes()["chief-0"] == ["init_fn"]
    if loop == "learn":
        assert notes()["worker-1"] == ["begin 200", "end"]


@pytest.mark.parametrize(
    ("loop", "sync"),
    [("learn", True), pytest.param("model_pruning", False, marks=pytest.mark.faults)],
)
def test_a_users_mistake_fails_the_job_and_what_was_trained_is_saved(run, logdir, loop, sync):
    with pytest.raises(JobFailed, match="a mistake of the user's"):
        run(loop, steps=1000, sync=sync, fail=20)
    step = int(tf.train.latest_checkpoint(str(logdir)).rpartition("-")[2])
    assert step >= 19
