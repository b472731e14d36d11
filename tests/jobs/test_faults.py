"""Jobs in which something dies, and jobs that cannot go well."""

import signal

import pytest

from .conftest import (
    LINEAR,
    MODELS,
    find_chief_or_none,
    last_error,
    result_of,
    status_of,
    step_of,
    until,
)

SLOW = ("--param", "slow=0.02")


def test_a_killed_worker_leaves_an_async_job_running(start, start_job, logdir):
    address = start_job("--workers", 2, "--async", "--max-steps", 100_000, "--lease-secs", 3, *SLOW)
    doomed, survivor = (start("worker", LINEAR, "--chief", address) for _ in range(2))
    until(lambda: step_of(address) >= 20 and len(_up(address)) == 2)

    doomed.kill()
    until(lambda: len(_up(address)) == 1, "the lease of the killed worker runs out")
    step = step_of(address)
    until(lambda: step_of(address) >= step + 20)

    assert survivor.running()
    assert status_of(address).generation == 1


def test_a_killed_worker_holds_a_sync_job_up_for_a_lease_at_most(start, start_job):
    address = start_job("--workers", 2, "--max-steps", 100_000, "--lease-secs", 3, *SLOW)
    doomed, _ = (start("worker", LINEAR, "--chief", address) for _ in range(2))
    until(lambda: step_of(address) >= 20)

    doomed.kill()
    until(lambda: len(_up(address)) == 1)
    step = step_of(address)
    until(lambda: step_of(address) >= step + 20, "the survivor computes both gradients")


@pytest.mark.parametrize(
    ("doomed", "mode"),
    [("ps-0", "--sync"), pytest.param("ps-1", "--async", marks=pytest.mark.faults)],
)
def test_a_killed_parameter_server_is_replaced_and_restored(start, logdir, doomed, mode):
    """The first one also holds the global step and the tokens."""
    command = start(
        *("run", LINEAR, "--launcher", "process", "--ps", 2, "--workers", 2, "--logdir", logdir),
        *("--max-steps", 400, mode, "--save-checkpoint-steps", 20, "--lease-secs", 3, *SLOW),
    )
    until(lambda: find_chief_or_none(logdir))
    address = find_chief_or_none(logdir)
    until(lambda: step_of(address) >= 60)
    workers = {t.index: t.pid for t in status_of(address).tasks if t.role == "worker"}

    command.children()[doomed].send_signal(signal.SIGKILL)
    until(lambda: getattr(status_of(address), "generation", 1) == 2, "a new generation")
    assert {t.index: t.pid for t in status_of(address).tasks if t.role == "worker"} == workers

    assert command.wait() == 0
    result = result_of(logdir)
    assert 400 <= result["global_step"] <= 401
    assert result["eval"]["mse"] < 0.1


def test_a_parameter_server_may_come_back_at_its_address(start, logdir, free_port):
    """It is started by hand with a port of its own; no worker trains on it until it is restored."""
    options = ("--save-checkpoint-steps", 20, "--lease-secs", 3, "--max-steps", 100_000, *SLOW)
    start("chief", LINEAR, "--logdir", logdir, "--port", 0, *options)
    address = until(lambda: find_chief_or_none(logdir))
    ps = ("ps", "--chief", address, "--port", free_port, "--index", 0)
    doomed = start(*ps)
    worker = start("worker", LINEAR, "--chief", address)
    until(lambda: status_of(address).checkpoint_step >= 20)

    doomed.kill()
    start(*ps)
    until(lambda: status_of(address).generation == 2 and step_of(address) >= 40)

    assert worker.running()
    assert status_of(address).tasks[0].address.endswith(f":{free_port}")


def test_ctrl_c_ends_with_a_checkpoint_and_the_same_command_goes_on(start, logdir):
    arguments = ("run", LINEAR, "--launcher", "process", "--workers", 1, "--logdir", logdir)
    arguments += ("--max-steps", 200)
    command = start(*arguments, *SLOW)
    until(lambda: find_chief_or_none(logdir))
    address = find_chief_or_none(logdir)
    until(lambda: step_of(address) >= 10)

    command.interrupt()

    assert command.wait() == 130
    stopped = result_of(logdir)
    assert stopped["reason"] == "stopped"
    assert 10 <= stopped["global_step"] < 200
    assert stopped["checkpoint"].endswith(f"model.ckpt-{stopped['global_step']}")
    assert start(*arguments).wait() == 0
    assert result_of(logdir)["global_step"] == 200
    assert result_of(logdir)["examples"] == 200 * 20


def test_a_killed_chief_that_may_not_be_started_again_takes_nothing_along(start, logdir):
    command = start(
        *("run", LINEAR, "--launcher", "process", "--workers", 1, "--logdir", logdir),
        *("--max-steps", 100_000, "--max-restarts", 0, *SLOW),
    )
    until(lambda: find_chief_or_none(logdir))
    address = find_chief_or_none(logdir)
    until(lambda: step_of(address) >= 5)

    command.children()["chief-0"].kill()

    assert command.wait() == 1
    assert "chief-0: killed by SIGKILL" in last_error(command)


def test_a_killed_launcher_takes_its_processes_along(start, logdir):
    command = start(
        *("run", LINEAR, "--launcher", "process", "--workers", 1, "--logdir", logdir),
        *("--max-steps", 100_000, *SLOW),
    )
    until(lambda: find_chief_or_none(logdir) and len(command.children()) == 3)

    command.kill()

    assert command.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--param", "fail=raise", "--param", "where=worker"), 1, "worker:0 failed: the build"),
        (("--param", "fail=no_variables"), 2, "no trainable variables"),
        (("--param", "fail=nan"), 1, "worker:0 failed: the loss is NaN at global step 6"),
    ],
)
def test_a_broken_model_ends_the_job_with_a_short_message(start, logdir, options, code, message):
    command = start(
        *("run", LINEAR, "--launcher", "process", "--workers", 1, "--max-steps", 50),
        *("--logdir", logdir, *options),
    )

    assert command.wait() == code
    assert message in last_error(command)
    assert "Traceback" not in command.output
    assert not (logdir / "job.json").exists()


def test_a_worker_that_cannot_even_start_fails_the_job(start, logdir, tmp_path):
    """Its model's file can be read by the chief's import alone."""
    model = tmp_path / "picky.py"
    model.write_text(
        "import sys\n"
        "if 'worker' in sys.argv: raise ImportError('no such data format')\n"
        f"sys.path.insert(0, {str(MODELS)!r})\n"
        "from linear import build\n"
    )
    command = start(
        *("run", f"{model}:build", "--launcher", "process", "--workers", 1, "--logdir", logdir)
    )

    assert command.wait() == 1
    assert "worker-0 failed before it joined: importing" in last_error(command)
    assert "no such data format" in last_error(command)


def test_an_occupied_port_is_named(start, start_job, tmp_path, logdir):
    address = start_job()
    port = address.rpartition(":")[2]

    command = start(
        *("run", LINEAR, "--launcher", "process", "--port", port, "--logdir", tmp_path / "other")
    )

    assert command.wait() == 2
    assert f"--port {port} is in use" in last_error(command)


def _up(address):
    status = status_of(address)
    return [t for t in status.tasks if t.role == "worker" and t.state == "up"] if status else []
