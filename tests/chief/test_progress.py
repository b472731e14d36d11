"""From counts to rates: windows, restarts from older checkpoints, and averages over workers."""

import pytest

from paramserve.chief.progress import WINDOW_SECS, Progress
from paramserve.protos import membership_pb2 as pb


@pytest.fixture
def progress():
    return Progress()


def test_the_first_counts_make_no_rate(progress):
    snapshot = progress.update(100.0, 500, 5000, [])
    assert (snapshot.global_step, snapshot.examples) == (500, 5000)
    assert (snapshot.steps_per_second, snapshot.examples_per_second) == (0.0, 0.0)


def test_rates_are_of_the_last_seconds_only(progress):
    for second in range(10):  # 10 steps a second ...
        snapshot = progress.update(float(second), 10 * second, 320 * second, [])
    assert snapshot.steps_per_second == pytest.approx(10)
    assert snapshot.examples_per_second == pytest.approx(320)
    for second in range(10, 20):  # ... then 2.
        snapshot = progress.update(float(second), 90 + 2 * (second - 9), 0, [])
    assert snapshot.steps_per_second == pytest.approx(2)


def test_a_job_that_stands_still_has_no_speed(progress):
    progress.update(0.0, 0, 0, [])
    progress.update(1.0, 50, 50, [])
    for quarter in range(1, 40):
        snapshot = progress.update(1 + quarter / 4, 50, 50, [])
    assert snapshot.steps_per_second == 0.0
    assert snapshot.global_step == 50


def test_after_a_long_gap_the_rate_is_that_of_the_gap(progress):
    progress.update(0.0, 0, 0, [])
    progress.update(1.0, 100, 100, [])
    snapshot = progress.update(1.0 + 4 * WINDOW_SECS, 120, 120, [])
    assert snapshot.steps_per_second == pytest.approx(20 / (4 * WINDOW_SECS))


def test_two_looks_at_the_same_time_make_no_infinite_rate(progress):
    progress.update(5.0, 0, 0, [])
    assert progress.update(5.0, 10, 10, []).steps_per_second == 0.0


def test_a_restart_from_an_older_checkpoint_makes_no_negative_rate(progress):
    progress.update(0.0, 100, 1000, [])
    progress.update(1.0, 200, 2000, [])
    snapshot = progress.update(3.0, 150, 1500, [])
    assert (snapshot.global_step, snapshot.examples) == (150, 1500)
    assert (snapshot.steps_per_second, snapshot.examples_per_second) == (0.0, 0.0)
    snapshot = progress.update(4.0, 170, 1700, [])
    assert snapshot.steps_per_second == pytest.approx(20)
    assert snapshot.examples_per_second == pytest.approx(200)


def test_losses_and_metrics_are_averaged_over_those_who_reported_one(progress):
    reports = [
        pb.WorkerReport(loss=1.0, metrics={"accuracy": 0.5, "only_here": 7.0}),
        pb.WorkerReport(loss=3.0, metrics={"accuracy": 0.7}),
        pb.WorkerReport(local_steps=0),  # No step yet.
    ]
    snapshot = progress.update(0.0, 1, 1, reports)
    assert snapshot.loss == pytest.approx(2.0)
    assert snapshot.metrics == pytest.approx({"accuracy": 0.6, "only_here": 7.0})


def test_a_loss_of_zero_counts(progress):
    reports = [pb.WorkerReport(loss=0.0), pb.WorkerReport(loss=1.0)]
    assert progress.update(0.0, 1, 1, reports).loss == pytest.approx(0.5)


def test_without_a_report_the_last_loss_stays(progress):
    assert progress.update(0.0, 0, 0, []).loss is None
    progress.update(1.0, 1, 1, [pb.WorkerReport(loss=4.0, metrics={"m": 1.0})])
    snapshot = progress.update(2.0, 2, 2, [])
    assert (snapshot.loss, snapshot.metrics) == (4.0, {"m": 1.0})


def test_the_time_trained_leaves_out_the_waits_before_and_after(progress):
    assert progress.trained() == (0.0, 0)
    for now, step in [(0.0, 30), (10.0, 30), (20.0, 30), (22.0, 34), (26.0, 50), (90.0, 50)]:
        progress.update(now, step, 0, [])
    assert progress.trained() == (pytest.approx(6.0), 20)


def test_nothing_was_trained_when_no_step_was_made(progress):
    progress.update(0.0, 7, 0, [])
    progress.update(50.0, 7, 0, [])
    assert progress.trained()[1] == 0
