"""The requests that a running job accepts."""

import pytest

from paramserve.chief.resize.scaling import ScaleTarget
from paramserve.errors import UsageError
from paramserve.jobs.options import JobOptions


def plan(**options):
    made = JobOptions(model="m.py:build", logdir="runs", num_workers=2, **options)
    return ScaleTarget(made, made.num_ps)


def test_a_job_is_as_it_was_started_until_somebody_asks_for_other_numbers():
    made = plan(num_ps=2)
    assert (made.workers, made.ps, made.limits_workers) == (2, 2, False)
    made.ask(ps=4)
    assert (made.workers, made.ps, made.limits_workers) == (2, 4, False)
    made.ask(workers=1)
    assert (made.workers, made.ps, made.limits_workers) == (1, 4, True)


@pytest.mark.parametrize(
    ("options", "asked", "message"),
    [
        ({}, {}, "give --workers N, --ps N, or both"),
        ({}, {"ps": 0}, "--ps 0: expected at least 1"),
        ({}, {"workers": 0}, "--workers 0: expected at least 1"),
        ({"ps_on_workers": True}, {"ps": 3}, "--ps 3: this job's workers hold the parameters"),
        ({"ps_on_workers": True}, {"workers": 1}, "--workers 1: 2 of this job's workers hold"),
        ({"chief_trains": True}, {"workers": 3}, "--workers 3: this job's chief is a worker"),
    ],
)
def test_a_number_that_the_job_cannot_have_is_refused_and_changes_nothing(options, asked, message):
    made = plan(**options)
    before = (made.workers, made.ps, made.limits_workers)
    with pytest.raises(UsageError, match=f"(?i){message}"):
        made.ask(**asked)
    assert (made.workers, made.ps, made.limits_workers) == before
