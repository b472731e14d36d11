"""Options on their way to the processes of a job, and what those do not listen to."""

from pathlib import Path

import pytest

from paramserve import DataPlane, UsageError
from paramserve.cluster.task_options import ParameterServerOptions
from paramserve.jobs.handover import options_from_json
from paramserve.jobs.launch_options import LaunchOptions
from paramserve.jobs.options import JobOptions
from paramserve.jobs.processes import JobProcesses
from paramserve.jobs.role_options import ChiefOptions, WorkerOptions
from paramserve.option import build

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


def arrive(spec, cls, **more):
    """Options of a role as its process reads them."""
    text = spec.command("10.0.0.1")[-1]
    return build(cls, {**options_from_json(cls, text), **more})


@pytest.mark.parametrize(
    "options", [OPTIONS, JobOptions(model="m.py:build", logdir="gs://bucket/x", ps_on_workers=True)]
)
def test_every_option_arrives_at_the_chief_as_it_was(options):
    launch = LaunchOptions(port=7, tensorflow_port=8, metrics_port=9, grace_secs=2.5, debug=True)
    spec = JobProcesses(options, launch, "job-1").chief()
    assert spec.command("10.0.0.1")[:-1] == ["chief", "m.py:build", "--options"]
    assert arrive(spec, ChiefOptions, model="m.py:build") == ChiefOptions(
        job=options,
        job_id="job-1",
        supervised=True,
        host="10.0.0.1",
        port=7,
        tensorflow_port=8,
        metrics_port=9,
        grace_secs=2.5,
        debug=True,
        incarnation=spec.incarnation,
    )


def test_a_chief_that_follows_another_one_serves_where_that_did():
    spec = JobProcesses(OPTIONS, LaunchOptions(port=7), "job-1").chief("10.0.0.9:7077")
    assert spec.options["port"] == 7077


def test_a_task_arrives_with_all_that_its_launcher_knows_of_it():
    launch = LaunchOptions(port=7, metrics_port=9, grace_secs=2.5, spares=1)
    processes = JobProcesses(OPTIONS, launch, "job-1")
    known = {"chief": "a:1", "host": "10.0.0.1", "max_wait_secs": 9.5, "grace_secs": 2.5}
    ps = processes.task("ps", 1, "a:1")
    assert arrive(ps, ParameterServerOptions) == ParameterServerOptions(
        **known, index=1, incarnation=ps.incarnation
    )
    for spare in (processes.task("spare", 0, "a:1"), processes.task("ps", 1, "a:1", replaces=True)):
        assert arrive(spare, ParameterServerOptions) == ParameterServerOptions(
            **known, spare=True, incarnation=spare.incarnation
        )
    worker = processes.task("worker", 2, "a:1")
    assert worker.command("x")[:3] == ["worker", "m.py:build", "--options"]
    assert arrive(worker, WorkerOptions, model="m.py:build") == WorkerOptions(
        **known, model="m.py:build", params=OPTIONS.params, index=2, incarnation=worker.incarnation
    )


def test_a_log_directory_is_named_for_processes_in_other_folders():
    options = JobOptions(model="m.py:build", logdir="runs/x", params={"rate": 0.1})
    chief = JobProcesses(options, LaunchOptions(), "job-1").chief()
    job = arrive(chief, ChiefOptions, model="other.py:build").job
    assert job.logdir == str(Path.cwd() / "runs" / "x")
    assert (job.model, job.params) == ("other.py:build", {"rate": "0.1"})


@pytest.mark.parametrize(
    ("cls", "text", "message"),
    [
        (ChiefOptions, "{", "--options is no JSON"),
        (ChiefOptions, "[]", "--options is no JSON object"),
        (ChiefOptions, '{"num_worker": 3}', "has no 'num_worker': did you mean 'num_workers'?"),
        (ChiefOptions, "{}", "--options lacks 'logdir'"),
        (WorkerOptions, "{}", "--options lacks 'chief'"),
        (WorkerOptions, '{"chief": "a:1", "spare": true}', "--options has no 'spare'"),
    ],
)
def test_options_that_no_launcher_has_written_are_refused(cls, text, message):
    with pytest.raises(UsageError) as caught:
        options_from_json(cls, text)
    assert message in str(caught.value)


def test_values_out_of_range_are_refused_however_they_come():
    with pytest.raises(UsageError, match="--workers 0: expected at least 1"):
        build(ChiefOptions, {"model": "m.py:build", "logdir": "x", "num_workers": 0})
    with pytest.raises(UsageError, match="--port 65536: expected 0 to 65535"):
        build(WorkerOptions, {"model": "m.py:build", "chief": "a:1", "port": 65536})


def test_processes_of_a_job_take_no_option_from_the_environment():
    """The port in it is the chief's, and all that it says is in the arguments already."""
    processes = JobProcesses(OPTIONS, LaunchOptions(port=7077), "job-1")
    names = ("PORT", "PARAM", "WORKERS", "CONFIG", "WIRE_DTYPE", "DEBUG", "CHIEF", "HOST")
    for spec in (
        processes.chief(),
        processes.task("ps", 0, "a:1"),
        processes.task("worker", 0, "a:1"),
    ):
        assert {spec.env[f"PARAMSERVE_{name}"] for name in names} == {""}
