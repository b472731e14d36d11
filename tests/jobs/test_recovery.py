"""Parameter servers that die or freeze while others stand by, and restore points in memory."""

import contextlib
import os
import signal
import time

import psutil
import pytest

from support.waiting import until

from .conftest import LINEAR, find_chief_or_none, last_error, result_of, status_of, step_of

SLOW = ("--param", "slow=0.02")
# No checkpoint is written before the end, so the model is restored from memory.
MEMORY_ONLY = ("--mirror-secs", 0.5, "--save-checkpoint-secs", 0)


def start_run(start, logdir, *options):
    command = start(
        *("run", LINEAR, "--launcher", "process", "--ps", 2, "--workers", 2, "--logdir", logdir),
        *("--lease-secs", 3, *MEMORY_ONLY, *SLOW, *options),
    )
    return command, until(lambda: find_chief_or_none(logdir))


def servers(address):
    """The pid of each parameter server that is up, and how many stand by."""
    tasks = [task for task in status_of(address).tasks if task.role == "ps"]
    up = {task.index: task.pid for task in tasks if task.state == "up"}
    return up, sum(task.state == "spare" for task in tasks)


def ready_to_lose_one(address):
    """Trained for a while, and a spare stands by."""
    status = status_of(address)
    is_trained = status and status.phase == "training" and status.restore_step >= 20
    return is_trained and servers(address)[1] == 1


@pytest.mark.faults
@pytest.mark.parametrize(("doomed", "mode", "steps"), [(0, "--sync", 800), (1, "--async", 1600)])
def test_a_spare_takes_over_from_memory_and_another_one_stands_by(
    start, logdir, doomed, mode, steps
):
    """The first server also holds the global step and the tokens."""
    command, address = start_run(start, logdir, mode, "--spares", 1, "--max-steps", steps)
    until(lambda: ready_to_lose_one(address), "a restore point and a spare")
    before, _ = servers(address)
    status = status_of(address)
    workers = {t.index: t.pid for t in status.tasks if t.role == "worker"}

    os.kill(before[doomed], signal.SIGKILL)
    status = until(lambda: (s := status_of(address)) and s.recoveries == 1 and s, "a recovery")
    assert status.recovered_step >= 20, "it came back from memory, not from the start"
    assert not list(logdir.glob("model.ckpt-*")), "there was nothing else to come back from"
    after, _ = servers(address)
    assert after[1 - doomed] == before[1 - doomed]
    assert after[doomed] != before[doomed]
    assert {t.index: t.pid for t in status.tasks if t.role == "worker"} == workers
    until(lambda: servers(address)[1] == 1, "the process that was lost is replaced by a spare")

    assert command.wait() == 0
    result = result_of(logdir)
    assert steps <= result["global_step"] <= steps + 1
    assert result["eval"]["mse"] < 0.1
    if mode == "--sync":
        # Each step that counts has counted 2 x 20 examples, once, whatever was computed twice.
        assert result["examples"] == 40 * result["global_step"]


@pytest.mark.faults
@pytest.mark.parametrize(("mode", "steps"), [("--sync", 600), ("--async", 1200)])
def test_a_frozen_server_is_left_behind_and_ends_when_it_wakes_up(start, logdir, mode, steps):
    command, address = start_run(start, logdir, mode, "--spares", 1, "--max-steps", steps)
    until(lambda: ready_to_lose_one(address), "a restore point and a spare")
    before, _ = servers(address)
    frozen = psutil.Process(before[1])

    frozen.suspend()
    try:
        status = until(lambda: (s := status_of(address)) and s.recoveries == 1 and s, "a recovery")
        assert status.recovered_step >= 20
        assert servers(address)[0][1] != frozen.pid
        step = step_of(address)
        until(lambda: step_of(address) >= step + 20, "training continues without it")
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            frozen.resume()
    until(lambda: not frozen.is_running() or frozen.status() == psutil.STATUS_ZOMBIE, "its end")

    assert command.wait() == 0
    result = result_of(logdir)
    assert steps <= result["global_step"] <= steps + 1
    assert result["eval"]["mse"] < 0.1


@pytest.mark.faults
def test_only_the_lost_shard_goes_back_when_asked(start, logdir):
    """The weights are on the first server, the global step too; the second has their slots."""
    command, address = start_run(
        start, logdir, "--async", "--spares", 1, "--recovery", "partial", "--max-steps", 400
    )
    until(lambda: ready_to_lose_one(address), "a restore point and a spare")
    before, _ = servers(address)
    step = step_of(address)
    os.kill(before[1], signal.SIGKILL)
    status = until(lambda: (s := status_of(address)) and s.recoveries == 1 and s, "a recovery")
    assert status.recovered_step >= step, "the global step is on the server that lives"
    assert command.wait() == 0


@pytest.mark.faults
@pytest.mark.parametrize(("mode", "steps"), [("--sync", 700), ("--async", 1500)])
def test_a_killed_chief_is_followed_by_another_that_restores_nothing(start, logdir, mode, steps):
    command, address = start_run(start, logdir, mode, "--max-steps", steps)
    status = until(lambda: (s := status_of(address)) and s.global_step >= 100 and s, "steps")
    before = {(t.role, t.index): t.pid for t in status.tasks}
    chief = command.children()["chief-0"]

    chief.send_signal(signal.SIGKILL)
    until(lambda: not chief.is_running() or chief.status() == psutil.STATUS_ZOMBIE, "its end")
    later = until(
        lambda: (s := status_of(address)) and s.global_step > status.global_step and s,
        "another chief at the same address",
    )
    assert not list(logdir.glob("model.ckpt-*")), "there was nothing to restore"
    assert {(t.role, t.index): t.pid for t in later.tasks} == before
    if mode == "--async":
        # The workers' sessions were never touched: they made steps without a chief.
        assert later.generation == status.generation
        assert all(task.recoveries == 0 for task in later.tasks)

    assert command.wait() == 0
    result = result_of(logdir)
    assert steps <= result["global_step"] <= steps + 1
    assert result["eval"]["mse"] < 0.1
    if mode == "--sync":
        assert result["examples"] == 40 * result["global_step"]


def test_a_chief_that_is_killed_while_it_evaluates_is_followed_by_one_that_does(
    start, logdir, tmp_path
):
    may_evaluate = tmp_path / "go"
    command, address = start_run(
        start, logdir, "--max-steps", 60, "--param", f"evaluate_after={may_evaluate}"
    )
    until(lambda: (s := status_of(address)) and s.phase == "evaluating", "the evaluation")
    time.sleep(3)  # A dismissed process would be gone by now.
    command.children()["chief-0"].kill()
    may_evaluate.touch()
    assert command.wait() == 0
    result = result_of(logdir)
    assert result["global_step"] >= 60
    assert result["eval"]["mse"] < 15
    assert result["reason"] == "max_steps"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--spares", -1), "--spares -1: expected at least 0"),
        (("--spares", 1, "--ps-on-workers"), "--spares 1 with --ps-on-workers"),
        (("--recovery", "backward"), "--recovery 'backward': expected rollback or partial"),
        (("--recovery", "partial", "--sync"), "--recovery partial with --sync"),
        (("--mirror-secs", -1), "--mirror-secs -1: expected a positive number of seconds"),
    ],
)
def test_options_that_make_no_sense_are_refused(start, logdir, options, message):
    command = start("run", LINEAR, "--launcher", "process", "--logdir", logdir, *options)
    assert command.wait() == 2
    assert last_error(command).startswith(f"error: {message}")
