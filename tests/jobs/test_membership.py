"""Workers that come early, late or never, and people who ask a running job."""

import json
import subprocess
import sys
import time

import pytest

from paramserve.cluster.status_client import StatusClient
from paramserve.errors import JobFailed
from support.waiting import until

from .conftest import LINEAR, find_chief_or_none, last_error, result_of, status_of, step_of


def workers_of(address):
    """The job's workers by index."""
    status = status_of(address)
    return {t.index: t for t in status.tasks if t.role == "worker"} if status else {}


def test_an_early_worker_waits_and_a_late_one_joins(start, start_job, logdir, free_port):
    """Started before any other process, a worker waits; started 10 s late, it contributes."""
    early = start("worker", LINEAR, "--chief", f"127.0.0.1:{free_port}", "--param", "slow=0.02")
    time.sleep(1)
    address = start_job("--workers", 1, "--max-steps", 100_000, "--port", free_port)
    until(lambda: step_of(address) >= 5, "the early worker trains")
    pid = workers_of(address)[0].pid

    time.sleep(10)
    step = step_of(address)
    late = start("worker", LINEAR, "--chief", address, "--param", "slow=0.02")
    until(lambda: 1 in workers_of(address) and workers_of(address)[1].local_steps >= 5)

    assert step_of(address) > step
    assert workers_of(address)[0].pid == pid
    assert workers_of(address)[0].recoveries == 0
    assert status_of(address).generation == 1
    with StatusClient(address) as job:
        job.stop()
    assert early.wait() == 0
    assert late.wait() == 0
    until(lambda: (logdir / "result.json").exists())
    assert result_of(logdir)["reason"] == "stopped"


def test_a_worker_without_a_chief_gives_up_in_time(start):
    worker = start("worker", LINEAR, "--chief", "127.0.0.1:9", "--max-wait-secs", 3)

    assert worker.wait() == 3
    assert last_error(worker).startswith("error: max_wait_secs=3 ran out: the chief at 127.0.0.1:9")


def test_a_worker_names_the_parameter_server_it_waits_for(start, logdir):
    start("chief", LINEAR, "--logdir", logdir, "--port", 0)
    address = until(lambda: find_chief_or_none(logdir))
    worker = start("worker", LINEAR, "--chief", address, "--max-wait-secs", 4)

    assert worker.wait() == 3
    assert "ps:0 (never heard of)" in last_error(worker)


def test_people_ask_a_running_job(start, start_job, logdir):
    address = start_job("--workers", 1, "--max-steps", 100_000, "--param", "slow=0.01")
    worker = start("worker", LINEAR, "--chief", address)
    until(lambda: step_of(address) >= 10)

    shown = _paramserve("status", "--logdir", logdir)
    found = json.loads(_paramserve("status", "--json", "--chief", address))
    saved = _paramserve("checkpoint", "--logdir", logdir)

    assert "worker:0" in shown
    assert found["phase"] == "training"
    assert int(found["global_step"]) >= 10
    assert found["generation"] == "1"
    assert found["loss"] > 0
    assert {(t["role"], t["state"]) for t in found["tasks"]} == {("ps", "up"), ("worker", "up")}
    assert all(t["heartbeat_age_secs"] < 10 for t in found["tasks"])
    # 5 weights and as many momenta of 4 bytes, and two counters of 8.
    assert sum(int(t["parameter_bytes"]) for t in found["tasks"]) == 56
    assert "model.ckpt-" in saved
    assert status_of(address).checkpoint in saved
    _paramserve("stop", "--logdir", logdir)
    assert worker.wait() == 0
    until(lambda: (logdir / "result.json").exists())
    with StatusClient(address, timeout_secs=2) as job, pytest.raises(JobFailed, match="no job"):
        until(lambda: job.status() is None)


def _paramserve(*arguments):
    command = [sys.executable, "-m", "paramserve", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
