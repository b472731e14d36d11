"""`paramserve status|stop|checkpoint` on a job's real control plane."""

import json

import pytest

from paramserve.chief.checkpoints.checkpoints import Checkpoint
from paramserve.chief.job_files import JobFiles
from paramserve.chief.state import Phase
from paramserve.cluster.spec import Role
from paramserve.data_plane.placement import ServerLoad
from paramserve.data_plane.traffic import Traffic
from paramserve.errors import JobFailed
from paramserve.protos import membership_pb2 as pb, status_pb2
from support.membership import register
from support.ports import free_addresses


@pytest.fixture
def dead_address():
    return free_addresses(1)[0]


@pytest.fixture
def training(job):
    """A job in the midst of training."""
    membership = job.state.membership
    register(membership, Role.PS, address="p.host:2222", incarnation="p", pid=5)
    worker = register(
        membership,
        Role.WORKER,
        address="a.host:2222",
        incarnation="a",
        metrics_address="a.host:9100",
    )
    membership.heartbeat(worker, "a", pb.WorkerReport(local_steps=1234, examples=9, loss=0.25))
    reports = [record.report for record in membership.up(Role.WORKER)]
    job.state.progress.update(0.0, 0, 0, reports)
    job.state.progress.update(1.0, 1500, 48000, reports)
    job.state.enter(Phase.INITIALIZING)
    job.state.enter(Phase.TRAINING)
    job.state.loads = {0: ServerLoad(2_500_000, 3, "w", 2_000_000)}
    job.state.traffic = {0: Traffic(pulled_bytes=2_000_000, pushed_bytes=1_500_000, transfers=2)}
    job.state.checkpoint = Checkpoint("runs/census/model.ckpt-1000", 1000, 1.7e9, 0.5)
    return job


def assert_one_line(result, code, message):
    assert result.exit_code == code
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr


# Status


def test_status_shows_job_and_tasks(invoke, training):
    result = invoke("status", "--chief", training.address)
    assert (result.exit_code, result.stderr) == (0, "")
    for text in (
        *("training", "global step 1,500 of 2,000", "1500.0 steps/s", "48,000 examples/s"),
        *("loss 0.25", "sync", "generation 1", "model.ckpt-1000"),
        *("ps:0", "p.host:2222", "2.50 MB"),
        *("worker:0", "a.host:2222", "1,234", "s ago"),
        "ps:0: 3 variables, the largest w (2.00 MB)",
        "a step of a worker takes 2.00 MB and sends 1.50 MB, in 2 transfers",
    ):
        assert text in result.stdout


def test_status_for_programs_has_every_field(invoke, training):
    result = invoke("status", "--chief", training.address, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    status = json.loads(result.stdout)
    assert set(status) == {field.name for field in status_pb2.JobStatus.DESCRIPTOR.fields}
    assert (status["phase"], status["job_id"], status["sync"]) == ("training", "job-1", True)
    assert (int(status["global_step"]), int(status["max_steps"])) == (1500, 2000)
    assert (status["loss"], status["steps_per_second"]) == (0.25, 1500.0)
    assert (status["checkpoint"], status["checkpoint_time"]) == (
        "runs/census/model.ckpt-1000",
        1.7e9,
    )
    ps, worker = status["tasks"]
    assert (ps["role"], ps["index"], ps["state"]) == ("ps", 0, "up")
    assert int(ps["parameter_bytes"]) == 2_500_000
    assert (worker["address"], worker["metrics_address"]) == ("a.host:2222", "a.host:9100")
    assert 0 <= worker["heartbeat_age_secs"] < 60
    assert "loss" not in ps  # Absent is not zero.


def test_a_job_is_found_by_its_log_directory(invoke, training, tmp_path):
    JobFiles(str(tmp_path)).announce("job-1", training.address, "")
    result = invoke("status", "--logdir", tmp_path, "--json")
    assert json.loads(result.stdout)["job_id"] == "job-1"


def test_what_a_job_waits_for_is_shown(invoke, job):
    result = invoke("status", "--chief", job.address)
    assert result.stdout.startswith("waiting for ps:0 (never heard of)\n")


def test_brackets_in_a_message_are_no_markup(invoke, job):
    """TensorFlow's errors are full of them."""
    job.state.enter(Phase.FAILED)
    job.state.detail = "worker:0 failed: no device [/job:ps/task:0] for [[{{node w}}]] [red]"
    result = invoke("status", "--chief", job.address)
    assert result.exit_code == 0
    assert job.state.detail in result.stdout


# Which job


@pytest.mark.parametrize("command", ["status", "stop", "checkpoint"])
def test_one_job_has_to_be_named(invoke, command, tmp_path):
    which = "which job? Give either --chief HOST:PORT or --logdir DIR"
    assert_one_line(invoke(command), 2, which)
    assert_one_line(invoke(command, "--chief", "a:1", "--logdir", tmp_path), 2, which)


@pytest.mark.parametrize("command", ["status", "stop", "checkpoint"])
def test_a_log_directory_without_a_job(invoke, command, tmp_path):
    result = invoke(command, "--logdir", tmp_path)
    assert_one_line(result, 2, f"no job runs in '{tmp_path}'")


@pytest.mark.parametrize("command", ["status", "stop", "checkpoint"])
def test_an_address_where_nothing_answers(invoke, command, dead_address):
    result = invoke(command, "--chief", dead_address)
    assert_one_line(result, 1, f"no job answers at {dead_address}: is the chief running?")


def test_a_job_that_died_without_cleaning_up(invoke, dead_address, tmp_path):
    JobFiles(str(tmp_path)).announce("job-1", dead_address, "")
    result = invoke("status", "--logdir", tmp_path)
    assert_one_line(result, 1, f"no job answers at {dead_address}")


@pytest.mark.parametrize("chief", ["localhost", "http://localhost:7077", "localhost:99999"])
def test_a_malformed_address(invoke, chief):
    assert_one_line(invoke("status", "--chief", chief), 2, repr(chief))


# Stop and checkpoint


def test_stopping_a_job(invoke, training):
    result = invoke("stop", "--chief", training.address)
    assert (result.exit_code, result.stdout) == (0, f"the job at {training.address} is ending\n")
    assert training.state.is_ending
    training.state.raise_if_failed()


def test_asking_for_a_checkpoint(invoke, training):
    training.state.save_checkpoint = lambda: Checkpoint("runs/x/model.ckpt-1500", 1500, 0.0, 0.1)
    result = invoke("checkpoint", "--chief", training.address)
    assert (result.exit_code, result.stdout) == (0, "runs/x/model.ckpt-1500 (global step 1500)\n")


def test_a_checkpoint_that_cannot_be_written(invoke, training):
    def fail():
        raise JobFailed("the checkpoint at runs/x was not written: disk full")

    training.state.save_checkpoint = fail
    result = invoke("checkpoint", "--chief", training.address)
    assert_one_line(result, 1, "refused: the checkpoint at runs/x was not written: disk full")


def test_a_checkpoint_before_there_is_a_model(invoke, job):
    result = invoke("checkpoint", "--chief", job.address)
    assert_one_line(result, 1, "refused: the job is waiting, there is no model to save")


def test_scale_returns_when_the_job_has_what_was_asked(invoke, training):
    result = invoke("scale", "--chief", training.address, "--workers", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "workers: 1, parameter servers: 1, at global step 1500" in result.stdout


@pytest.mark.parametrize(
    ("numbers", "code", "message"),
    [
        (("--workers", 3), 3, "--max-wait-secs 0.5 ran out: the job has not 3 workers yet"),
        (("--ps", 0), 2, "--ps 0: expected at least 1"),
        ((), 2, "no numbers to scale to: give --workers N, --ps N, or both"),
    ],
)
def test_scale_says_what_it_did_not_get(invoke, training, numbers, code, message):
    result = invoke("scale", "--chief", training.address, *numbers, "--max-wait-secs", 0.5)
    assert result.exit_code == code
    assert message in result.stderr
