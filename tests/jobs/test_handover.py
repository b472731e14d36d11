"""A job's options on their way to its chief, and what the job's processes do not listen to."""

import json
from pathlib import Path

import pytest

from paramserve import DataPlane, UsageError
from paramserve.jobs.handover import options_from_json, options_to_json
from paramserve.jobs.launch_options import LaunchOptions
from paramserve.jobs.options import JobOptions
from paramserve.jobs.processes import JobProcesses

# Each option with another value than its default, so that none is lost unseen.
OPTIONS = JobOptions(
    model="m.py:build",
    logdir="/runs/x",
    num_ps=2,
    num_workers=3,
    sync=False,
    replicas_to_aggregate="all",
    max_steps=7,
    ps_on_workers=False,
    chief_trains=True,
    save_checkpoint_secs=None,
    save_checkpoint_steps=5,
    keep_checkpoints=0,
    save_summaries_steps=3,
    max_wait_secs=9.5,
    heartbeat_secs=0.5,
    lease_secs=4.25,
    mirror_secs=2.5,
    recovery="partial",
    stall_secs=0.0,
    max_bad_records=4,
    evaluate=False,
    data_plane=DataPlane(
        transfer_bucket_bytes=0,
        storage="flat",
        max_shard_bytes=1000,
        wire_dtype="bfloat16",
        stale_pull=True,
        max_staleness=2,
        top_k=0.1,
    ),
    params={"rate": "0.1", "path": "a=b --sync"},
)


@pytest.mark.parametrize(
    "options", [OPTIONS, JobOptions(model="m.py:build", logdir="gs://bucket/x", ps_on_workers=True)]
)
def test_every_option_arrives_at_the_chief_as_it_was(options):
    assert options_from_json("m.py:build", options_to_json(options)) == options


def test_a_log_directory_is_named_for_processes_in_other_folders():
    options = JobOptions(model="m.py:build", logdir="runs/x", params={"rate": 0.1})
    arrived = options_from_json("other.py:build", options_to_json(options))
    assert arrived.logdir == str(Path.cwd() / "runs" / "x")
    assert (arrived.model, arrived.params) == ("other.py:build", {"rate": "0.1"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "--options is no JSON"),
        ("[]", "--options is no JSON object"),
        ('{"logdir": "x", "num_worker": 3}', "has no 'num_worker': did you mean 'num_workers'?"),
        ('{"logdir": "x", "num_workers": 0}', "--workers 0: expected at least 1"),
    ],
)
def test_options_that_no_launcher_has_written_are_refused(text, message):
    with pytest.raises(UsageError) as caught:
        options_from_json("m.py:build", text)
    assert message in str(caught.value)


def test_processes_of_a_job_take_no_option_from_the_environment():
    """The port in it is the chief's, and all that it says is in the arguments already."""
    processes = JobProcesses(OPTIONS, LaunchOptions(port=7077), "job-1")
    chief = processes.chief()
    assert chief.arguments[chief.arguments.index("--port") + 1] == "7077"
    options = json.loads(chief.arguments[chief.arguments.index("--options") + 1])
    assert options["num_workers"] == 3
    for spec in (chief, processes.task("ps", 0, "a:1"), processes.task("worker", 0, "a:1")):
        for name in ("PORT", "PARAM", "WORKERS", "CONFIG", "WIRE_DTYPE", "DEBUG"):
            assert spec.env[f"PARAMSERVE_{name}"] == ""
    worker = processes.task("worker", 0, "a:1").arguments
    assert worker[worker.index("--port") + 1] == "0"
