"""The options that a job accepts, and the messages about others."""

import dataclasses
import json

import pytest

from paramserve.errors import UsageError
from paramserve.jobs.options import JobOptions, JobResult


def options(**values):
    return JobOptions(**{"model": "m.py:build", "logdir": "runs/x", **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_ps": 0}, "--ps 0: expected at least 1"),
        ({"num_workers": 0}, "--workers 0: expected at least 1"),
        ({"num_workers": -1, "chief_trains": True}, "--workers -1: expected at least 0"),
        ({"replicas_to_aggregate": 0}, "--replicas-to-aggregate 0: expected at least 1"),
        ({"replicas_to_aggregate": "some"}, "--replicas-to-aggregate 'some': expected a number or"),
        ({"max_bad_records": -1}, "--max-bad-records -1: expected at least 0"),
        ({"stall_secs": 10.0}, "--stall-secs 10 with --lease-secs 10: a stall has to outlast"),
        ({"max_steps": 0}, "--max-steps 0: expected at least 1"),
        ({"save_checkpoint_steps": 0}, "--save-checkpoint-steps 0: expected at least 1"),
        ({"save_checkpoint_secs": -1.0}, "--save-checkpoint-secs -1: expected a positive number"),
        ({"keep_checkpoints": -1}, "--keep-checkpoints -1: expected at least 0"),
        ({"save_summaries_steps": -5}, "--save-summaries-steps -5: expected at least 0"),
        ({"max_wait_secs": 0.0}, "--max-wait-secs 0: expected a positive number of seconds"),
        ({"max_wait_secs": float("nan")}, "--max-wait-secs nan: expected a positive number"),
        ({"heartbeat_secs": 0.0}, "--heartbeat-secs 0: expected a positive number of seconds"),
        (
            {"heartbeat_secs": 6.0, "lease_secs": 10.0},
            "--lease-secs 10 with --heartbeat-secs 6: a lease has to outlast two heartbeats",
        ),
        ({"logdir": ""}, "--logdir is empty: name a directory"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_expected(values, message):
    with pytest.raises(UsageError) as caught:
        options(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"num_workers": 0, "chief_trains": True},
        {"save_checkpoint_secs": None, "save_checkpoint_steps": 1},
        {"keep_checkpoints": 0, "save_summaries_steps": 0},
        {"heartbeat_secs": 0.1, "lease_secs": 0.2},
        {"num_workers": 4, "replicas_to_aggregate": 3},
        {"num_workers": 1, "replicas_to_aggregate": 8},
    ],
)
def test_the_limits_themselves_are_allowed(values):
    options(**values)


def test_each_trainer_gives_one_gradient_of_a_step_unless_told_otherwise():
    assert options(num_workers=3).aggregate == 3
    with_chief = options(num_workers=3, chief_trains=True)
    assert (with_chief.trainers, with_chief.aggregate) == (4, 4)
    assert options(num_workers=3, replicas_to_aggregate=2).aggregate == 2
    assert options(num_workers=3, replicas_to_aggregate="all").aggregate == 0


def test_a_result_survives_its_file():
    result = JobResult(
        global_step=7,
        loss=None,
        examples=70,
        seconds=1.5,
        steps_per_second=4.667,
        eval={"accuracy": 0.75},
        checkpoint="runs/x/model.ckpt-7",
        workers=2,
        ps=1,
        sync=True,
        reason="max_steps",
        logdir="runs/x",
    )
    assert JobResult.from_dict(json.loads(json.dumps(dataclasses.asdict(result)))) == result
