"""Preemption of single processes of a running job: no step is lost, no restart is used up."""

import os
import signal

import pytest

from support.waiting import until

from .conftest import LINEAR, find_chief_or_none, result_of, status_of, step_of

SLOW = ("--param", "slow=0.02")
# No checkpoint is due before the end. A lease lasts longer than any test.
PATIENT = ("--save-checkpoint-secs", 0, "--lease-secs", 600)
# A preempted process takes nothing from the budget. Others may be slow to start.
STRICT = (*PATIENT, "--max-restarts", 0, "--grace-secs", 200)


def start_run(start, logdir, *options):
    command = start(
        *("run", LINEAR, "--launcher", "process", "--ps", 2, "--workers", 2, "--logdir", logdir),
        *(*STRICT, *SLOW, *options),
    )
    return command, until(lambda: find_chief_or_none(logdir))


def trained(address, steps=50):
    """The status, once it has trained for so long with two workers."""
    status = status_of(address)
    return status and status.global_step >= steps and len(pids(status, "worker")) == 2 and status


def pids(status, role):
    return {t.index: t.pid for t in status.tasks if t.role == role and t.state == "up"}


def recovered(address):
    status = status_of(address)
    return status and status.recoveries == 1 and status


def test_a_preempted_parameter_server_hands_over_what_it_holds(start, logdir):
    """Training continues while a replacement starts; then it continues from the last step."""
    command, address = start_run(start, logdir, "--async")
    before = until(lambda: trained(address), "steps")

    os.kill(pids(before, "ps")[1], signal.SIGTERM)
    after = until(lambda: recovered(address), "a recovery")

    assert after.recovered_step > before.global_step + 20, "it stayed while another one started"
    assert after.checkpoint_step == after.recovered_step, "a checkpoint was made for the purpose"
    assert pids(after, "ps")[0] == pids(before, "ps")[0]
    assert pids(after, "ps")[1] != pids(before, "ps")[1]
    assert pids(after, "worker") == pids(before, "worker")
    assert dict(after.preemptions) == {"ps": 1}
    until(lambda: step_of(address) >= after.recovered_step + 20)
    command.interrupt()
    assert command.wait() == 130, "that is still the end of the whole job"
    result = result_of(logdir)
    assert result["reason"] == "stopped"
    assert result["checkpoint"].endswith(f"-{result['global_step']}")
    assert result["loss"] < 0.1
    # What counts is what the model has seen: all but the steps that were under way.
    assert 20 * result["global_step"] - 80 <= result["examples"] <= 20 * result["global_step"]


def test_nobody_waits_for_a_preempted_worker(start, start_job):
    """Its token goes to the other at once."""
    address = start_job("--workers", 2, "--max-steps", 100_000, *PATIENT, *SLOW)
    leaving, staying = (start("worker", LINEAR, "--chief", address) for _ in range(2))
    until(lambda: trained(address), "steps")

    os.kill(leaving.pid, signal.SIGTERM)
    until(lambda: not leaving.running())
    step = step_of(address)
    until(lambda: step_of(address) >= step + 20, "the other computes both gradients")

    status = status_of(address)
    (gone,) = [t for t in status.tasks if t.pid == leaving.pid]
    assert gone.state == "preempted"
    assert dict(status.preemptions) == {"worker": 1}
    assert status.gradients_dropped <= 1, "its last one at most, if it came twice"
    assert leaving.wait() == 143
    assert staying.running()


@pytest.mark.faults
@pytest.mark.parametrize(("mode", "steps"), [("--sync", 1200), ("--async", 3000)])
def test_a_preempted_chief_is_followed_by_another(start, logdir, mode, steps):
    command, address = start_run(start, logdir, mode, "--max-steps", steps)
    before = until(lambda: trained(address), "steps")
    chief = command.children()["chief-0"]

    chief.terminate()
    until(lambda: not chief.is_running() or chief.status() == "zombie", "its end")
    after = until(
        lambda: (s := status_of(address)) and s.global_step > before.global_step and s,
        "another chief at the same address",
    )

    assert after.checkpoint_step >= before.global_step, "saved in case that more is gone"
    for role in ("ps", "worker"):
        assert pids(after, role) == pids(before, role)
    assert command.wait() == 0
    result = result_of(logdir)
    assert steps <= result["global_step"] <= steps + 1
    if mode == "--sync":
        assert result["examples"] == 40 * result["global_step"]


@pytest.mark.faults
def test_a_preempted_server_with_a_spare_and_mirrors_loses_no_step(start, logdir):
    """The first server also holds the global step and the tokens."""
    command, address = start_run(
        *(start, logdir, "--sync", "--max-steps", 800, "--spares", 1, "--mirror-secs", 600)
    )
    before = until(lambda: trained(address), "steps")

    os.kill(pids(before, "ps")[0], signal.SIGTERM)
    after = until(lambda: recovered(address), "a recovery")

    assert after.recovered_step >= before.global_step
    assert not list(logdir.glob("model.ckpt-*")), "it came out of memory"
    assert command.wait() == 0
    result = result_of(logdir)
    assert result["global_step"] == 800
    assert result["examples"] == 40 * 800


@pytest.mark.faults
def test_a_worker_that_holds_a_shard_hands_it_over(start, logdir):
    command = start(
        *("run", LINEAR, "--launcher", "process", "--ps-on-workers", "--workers", 2),
        *("--logdir", logdir, "--async", "--max-steps", 3000, *STRICT, *SLOW),
    )
    address = until(lambda: find_chief_or_none(logdir))
    before = until(lambda: trained(address), "steps")

    os.kill(pids(before, "worker")[1], signal.SIGTERM)
    after = until(lambda: recovered(address), "a recovery")

    assert after.recovered_step >= before.global_step
    assert after.checkpoint_step == after.recovered_step
    assert dict(after.preemptions) == {"ps": 1, "worker": 1}
    assert command.wait() == 0
    assert 3000 <= result_of(logdir)["global_step"] <= 3001
