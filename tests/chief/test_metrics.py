"""The metrics of a job for Prometheus."""

import pytest
from prometheus_client import CollectorRegistry

from paramserve.chief.checkpoints.files import Checkpoint
from paramserve.chief.control_figures import ControlFigures
from paramserve.chief.metrics import ChiefMetrics
from paramserve.chief.progress import Snapshot
from paramserve.chief.services.guard import Refusal
from paramserve.data_plane.placement import ServerLoad
from paramserve.data_plane.sync.tokens import SyncCounters
from paramserve.data_plane.traffic import Traffic


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    return ChiefMetrics(registry)


def test_progress_tasks_parameters_and_checkpoints(metrics, registry):
    metrics.show_progress(Snapshot(40, 400, 2.0, 20.0, 0.5))
    metrics.show_tasks({"ps": 2, "worker": 3, "spare": 1}, generation=4)
    metrics.show_parameters(
        {0: ServerLoad(1000, 2, "w", 900), 1: ServerLoad(1200, 1, "b", 1200)},
        {1: Traffic(pulled_bytes=800, pushed_bytes=700, transfers=2)},
    )
    metrics.count_refused_call(Refusal.WRONG_TOKEN)
    metrics.count_gradients(SyncCounters(applied=30, dropped=2, reissued=1))
    metrics.count_gradients(SyncCounters(applied=10))
    metrics.restore_step.set(30)
    metrics.records_set_aside.set(7)
    metrics.recovery_seconds.observe(0.75)
    metrics.resize_seconds.observe(1.5)
    metrics.show_preemptions({"worker": 2})
    metrics.show_preemptions({"worker": 3})
    metrics.show_saved(Checkpoint("runs/x/model.ckpt-40", 40, 1.7e9, 0.25))
    metrics.checkpoint_failures.inc()
    control = ControlFigures()
    control.note(0.003, 2.5)
    metrics.show_control(control, {"tasks": 5})
    metrics.count_refused("open streams of watchers")
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if "_bucket" not in sample.name and "_created" not in sample.name
    }
    assert values == {
        ("paramserve_global_step",): 40,
        ("paramserve_steps_per_second",): 2,
        ("paramserve_examples_per_second",): 20,
        ("paramserve_examples_total",): 0,
        ("paramserve_loss",): 0.5,
        ("paramserve_tasks_up", "ps"): 2,
        ("paramserve_tasks_up", "worker"): 3,
        ("paramserve_tasks_up", "spare"): 1,
        ("paramserve_restore_step",): 30,
        ("paramserve_input_records_set_aside",): 7,
        ("paramserve_resize_seconds_count",): 1,
        ("paramserve_resize_seconds_sum",): 1.5,
        ("paramserve_step_age_seconds",): 0,
        ("paramserve_stalls_total",): 0,
        ("paramserve_recovery_seconds_count",): 1,
        ("paramserve_recovery_seconds_sum",): 0.75,
        ("paramserve_generation",): 4,
        ("paramserve_recoveries_total",): 0,
        ("paramserve_preemptions_total", "ps"): 0,
        ("paramserve_preemptions_total", "worker"): 3,
        ("paramserve_parameter_bytes", "0"): 1000,
        ("paramserve_parameter_bytes", "1"): 1200,
        ("paramserve_step_traffic_bytes", "1", "pull"): 800,
        ("paramserve_step_traffic_bytes", "1", "push"): 700,
        ("paramserve_gradients_total", "applied"): 40,
        ("paramserve_gradients_total", "dropped"): 2,
        ("paramserve_tokens_reissued_total",): 1,
        ("paramserve_refused_calls_total", "no token"): 0,
        ("paramserve_refused_calls_total", "wrong token"): 1,
        ("paramserve_refused_calls_total", "other right"): 0,
        ("paramserve_refused_calls_total", "too many"): 0,
        ("paramserve_checkpoint_failures_total",): 1,
        ("paramserve_checkpoint_step",): 40,
        ("paramserve_checkpoint_timestamp_seconds",): 1.7e9,
        ("paramserve_control_streams", "tasks"): 5,
        ("paramserve_control_refused_total", "checkpoints under way"): 0,
        ("paramserve_control_refused_total", "message bytes"): 0,
        ("paramserve_control_refused_total", "open streams of a connection"): 0,
        ("paramserve_control_refused_total", "open streams of tasks"): 0,
        ("paramserve_control_refused_total", "open streams of watchers"): 1,
        ("paramserve_control_refused_total", "registered tasks"): 0,
        ("paramserve_lease_extension_seconds_total",): 2.5,
        ("paramserve_control_loop_lag_seconds_count",): 1,
        ("paramserve_control_loop_lag_seconds_sum",): 0.003,
        ("paramserve_checkpoint_seconds_count",): 1,
        ("paramserve_checkpoint_seconds_sum",): 0.25,
    }


def test_examples_are_those_of_this_run_and_never_count_down(metrics, registry):
    def total():
        return registry.get_sample_value("paramserve_examples_total")

    seen = []
    for examples in (5000, 5100, 5050, 5080):  # Resumed at 5000; a restored checkpoint at 5050.
        metrics.show_progress(Snapshot(examples=examples))
        seen.append(total())
    assert seen == [0, 100, 100, 130]


def test_a_second_job_in_the_process_has_metrics_of_its_own(metrics, registry):
    other = CollectorRegistry()
    ChiefMetrics(other).show_progress(Snapshot(7))
    metrics.show_progress(Snapshot(9))
    assert other.get_sample_value("paramserve_global_step") == 7
    assert registry.get_sample_value("paramserve_global_step") == 9
