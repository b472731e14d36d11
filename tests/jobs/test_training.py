"""Whole jobs without faults: training, its workers, and the files left behind."""

import json

import pytest
import tensorflow as tf

from paramserve import Job

from .conftest import CLASSES, LAYERS, LINEAR, result_of


def test_two_workers_share_one_model_and_every_example_counts(logdir):
    """Sync, 2 of 2: each worker has half of the classes, the model learns all four."""
    job = Job(CLASSES, logdir=str(logdir), launcher="process", num_workers=2, max_steps=150)
    seen = []

    result = job.run(on_status=seen.append)

    assert result.global_step == 150
    assert result.examples == 150 * 2 * 16
    assert result.eval["accuracy"] > 0.95
    assert result.reason == "max_steps"
    computed = sum(task.examples for task in seen[-1].tasks if task.role == "worker")
    assert computed == result.examples
    assert json.loads((logdir / "result.json").read_text())["eval"] == result.eval
    assert not (logdir / "job.json").exists()


def test_one_worker_alone_learns_only_its_own_classes(logdir):
    """The other half of the test above: without worker 1 its classes stay unknown."""
    job = Job(CLASSES, logdir=str(logdir), launcher="process", num_workers=1, max_steps=150)

    assert job.run().eval["accuracy"] < 0.6


def test_a_keras_model_with_preprocessing_layers_in_mixed_precision(logdir):
    """Tables are filled where the model runs, update ops run, and weights are kept in 32 bits."""
    job = Job(LAYERS, logdir=str(logdir), launcher="process", num_workers=1, max_steps=150)

    result = job.run()

    assert result.eval["error"] < 0.4  # A constant has 1.1 at best.
    checkpoint = tf.train.load_checkpoint(result.checkpoint)
    assert 150 <= checkpoint.get_tensor("own_steps") <= 151
    dtypes = checkpoint.get_variable_to_dtype_map()
    assert dtypes["dense/kernel"] == dtypes["batch_normalization/moving_mean"] == tf.float32


@pytest.mark.faults
def test_training_goes_on_where_the_checkpoint_is(start, logdir):
    """Async; the second run of the same command starts at the first one's global step."""
    command = ("run", LINEAR, "--workers", 2, "--async", "--launcher", "process")
    command += ("--logdir", logdir)

    assert start(*command, "--max-steps", 60).wait() == 0
    first = result_of(logdir)
    assert start(*command, "--max-steps", 120).wait() == 0
    second = result_of(logdir)

    # Each of two workers may add the step that it has begun.
    assert 60 <= first["global_step"] <= 61
    assert 120 <= second["global_step"] <= 121
    assert second["examples"] == second["global_step"] * 20
    names = dict(tf.train.list_variables(second["checkpoint"]))
    assert names["weights"] == [5]
    assert names["weights/Momentum"] == [5]
    assert "global_step" in names
    # A third time there is nothing left to do, and nothing is done.
    assert start(*command, "--max-steps", 120).wait() == 0
    assert result_of(logdir)["global_step"] == second["global_step"]
    weights = tf.train.load_variable(second["checkpoint"], "weights")
    assert weights == pytest.approx([0, 1, 2, 3, 4], abs=0.2)


def test_events_hold_the_jobs_scalars_and_the_models_own(logdir):
    job = Job(
        LINEAR,
        logdir=str(logdir),
        launcher="process",
        num_workers=1,
        max_steps=60,
        save_summaries_steps=10,
        params={"slow": "0.02"},
    )
    job.run()

    tags = {}
    for path in logdir.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                tags.setdefault(value.tag, []).append(event.step)
    expected = {"loss", "global_step/sec", "examples/sec", "squared_error", "eval/mse"}
    assert expected <= set(tags)
    assert "metrics/largest_weight" in tags
    # Every ten steps, among those that this worker made.
    assert len(tags["squared_error"]) >= 3


def test_input_that_ends_ends_the_job(logdir):
    job = Job(LINEAR, logdir=str(logdir), launcher="process", num_workers=2, params={"limit": "12"})

    result = job.run()

    assert result.reason == "end_of_input"
    # 24 gradients were computed; the last may have found no partner.
    assert 11 <= result.global_step <= 12


def test_a_chief_that_trains_counts_as_a_worker(logdir):
    job = Job(
        LINEAR,
        logdir=str(logdir),
        launcher="process",
        num_workers=1,
        chief_trains=True,
        max_steps=40,
        params={"slow": "0.1"},  # Else one has made all steps before the other has begun.
    )
    seen = []

    result = job.run(on_status=seen.append)

    workers = [task for task in seen[-1].tasks if task.role == "worker"]
    assert len(workers) == 2
    assert all(task.local_steps > 0 for task in workers)
    assert result.examples == 40 * 2 * 20
    assert result.workers == 2


def test_a_backup_worker_is_not_waited_for(logdir):
    """1 of 2: every global step takes the faster gradient, a stale one is dropped."""
    job = Job(
        LINEAR,
        logdir=str(logdir),
        launcher="process",
        num_workers=2,
        replicas_to_aggregate=1,
        max_steps=60,
    )
    seen = []

    result = job.run(on_status=seen.append)

    assert result.global_step == 60
    computed = sum(task.examples for task in seen[-1].tasks if task.role == "worker")
    assert result.examples <= computed
    assert result.loss < 1.0
