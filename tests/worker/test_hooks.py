"""A worker's report of its steps, and its reaction to a NaN loss."""

import math
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from paramserve.errors import JobFailed
from paramserve.worker.hooks import ReportHook
from paramserve.worker.metrics import WorkerMetrics


@pytest.fixture
def make_hook():
    def make_hook(*, tolerates_nan=False):
        loop = SimpleNamespace(tolerates_nan=tolerates_nan)
        hook = ReportHook(WorkerMetrics(CollectorRegistry()))
        hook.built = SimpleNamespace(loop=loop)
        return hook

    return make_hook


def step(hook, number, loss):
    results = {"loss": loss, "step": number, "examples": 8, "metrics": {"accuracy": 0.5}}
    hook.after_run(None, SimpleNamespace(results=results))


def test_steps_and_examples_are_totals_and_the_rest_is_the_newest(make_hook):
    hook = make_hook()
    step(hook, 1, 3.0)
    step(hook, 3, 2.0)
    report = hook.report()
    assert (report.global_step, report.local_steps, report.examples) == (3, 2, 16)
    assert report.loss == 2.0
    assert dict(report.metrics) == {"accuracy": 0.5}


def test_a_nan_fails_the_job_and_the_chief_is_told_of_it_to_save_nothing(make_hook):
    hook = make_hook()
    with pytest.raises(JobFailed, match="the loss is NaN at global step 4; a smaller learning"):
        step(hook, 4, math.nan)
    assert math.isnan(hook.report().loss)


def test_a_loop_may_tolerate_a_nan(make_hook):
    hook = make_hook(tolerates_nan=True)
    step(hook, 4, math.nan)
    step(hook, 5, 1.0)
    assert hook.report().local_steps == 2
