"""Steps that never end: the report names hanging and waiting tasks; the job continues or fails."""

import re

import pytest

from support.waiting import until

from .conftest import MODELS, find_chief_or_none, last_error, result_of, status_of

HANGING = f"{MODELS / 'hanging.py'}:build"


@pytest.fixture
def run_hanging(start, logdir, tmp_path):
    """Runs a job of two workers whose second one hangs."""

    def run(*options, **params):
        settings = [f"--param={name}={value}" for name, value in params.items()]
        command = start(
            *("run", HANGING, "--launcher", "process", "--workers", 2, "--logdir", logdir),
            *("--lease-secs", 2, "--heartbeat-secs", 0.4, "--stall-secs", 3, *options),
            *(f"--param=notes={tmp_path}", *settings),
        )
        return command, until(lambda: find_chief_or_none(logdir))

    return run


def test_a_step_that_hangs_is_made_again_in_a_new_session(run_hanging, logdir):
    command, address = run_hanging("--max-steps", 300, hang=20, times=1)
    status = until(lambda: (s := status_of(address)) and s.stalls == 1 and s, "a report")
    assert re.search(r"worker:1 has had a token for step \d+ for \d+ s", status.detail)
    assert status.detail.endswith("worker:0 waits for worker:1")
    assert status.secs_since_step > 1  # The token may be older than the newest step.
    assert command.wait() == 0
    result = result_of(logdir)
    assert result["global_step"] in (300, 301)
    # Nothing was lost, nothing was restored, and no gradient was computed in another's place.
    assert result["examples"] == 40 * result["global_step"]
    log = (logdir / "logs" / "chief-0.log").read_text()
    assert "generation 1 is lost" not in log
    assert "steps are made again" in log


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["--sync", "--async"])
def test_a_worker_that_hangs_again_is_lost_and_another_process_takes_its_place(run_hanging, mode):
    command, address = run_hanging("--max-steps", 1_000_000, mode, hang=20, times=2, slow=0.03)
    pid = until(lambda: worker_of(address).get("up"), "the worker that will hang")
    until(lambda: worker_of(address).get("up") not in (None, pid), "its successor")
    steps = {t.index: t.local_steps for t in status_of(address).tasks if t.role == "worker"}
    until(lambda: are_all_beyond(address, steps), "steps of both")
    command.interrupt()
    assert command.wait() == 130


@pytest.mark.faults
def test_a_worker_that_always_hangs_fails_the_job(run_hanging):
    command, _ = run_hanging("--max-steps", 1_000_000, hang=20, times=99, slow=0.03)
    assert command.wait() == 1
    assert last_error(command).startswith("error: worker:1 hung again and again: ")
    assert "worker:1 has had a token for step" in last_error(command)


@pytest.mark.faults
def test_without_a_limit_a_job_waits(run_hanging):
    """The test looks for a few seconds."""
    command, address = run_hanging("--stall-secs", 0, "--max-steps", 60, hang=20, times=1)
    until(lambda: (s := status_of(address)) and s.secs_since_step > 8, "eight seconds")
    assert status_of(address).stalls == 0
    assert command.running()


def are_all_beyond(address, steps):
    """Returns whether each worker has made ten steps more."""
    status = status_of(address)
    workers = [task for task in status.tasks if task.role == "worker"] if status else ()
    return bool(workers) and all(t.local_steps >= steps[t.index] + 10 for t in workers)


def worker_of(address):
    """The pid of the second worker, by its state."""
    status = status_of(address)
    tasks = status.tasks if status else ()
    return {task.state: task.pid for task in tasks if (task.role, task.index) == ("worker", 1)}
