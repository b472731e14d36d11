"""Jobs that get another number of parameter servers and workers while they train."""

import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from .conftest import (
    MODELS,
    find_chief_or_none,
    result_of,
    status_of,
    step_of,
    until,
)

COUNTED = f"{MODELS / 'counted.py'}:build"
KNOWN = f"{MODELS / 'shards.py'}:build"
SLOW = ("--param", "slow=0.02")


def run(start, logdir, model, *options):
    command = start(
        *("run", model, "--launcher", "process", "--workers", 2, "--logdir", logdir),
        *("--lease-secs", 3, *options),
    )
    return command, until(lambda: find_chief_or_none(logdir))


def scale(start, address, *numbers):
    command = start("scale", "--chief", address, *numbers)
    assert command.wait() == 0, command.output
    return command.output


def servers(address):
    """Bytes that each parameter server holds that is up."""
    tasks = [t for t in status_of(address).tasks if t.role == "ps" and t.state == "up"]
    return {task.index: task.parameter_bytes for task in tasks}


# More than any machine reads while a test lasts.
ENDLESS = ("--param", "epochs=1000", "--param", "records=400", *SLOW)


def stop_and_check(command, logdir):
    """Ends a job between two steps: the model has seen every batch as often as it was counted."""
    command.interrupt()
    command.wait()
    result = result_of(logdir)
    seen, batches, step = (
        tf.train.load_variable(result["checkpoint"], name)
        for name in ("seen", "paramserve/input", "global_step")
    )
    assert batches.sum() == step == result["global_step"]
    assert seen.sum() == result["examples"] == 10 * step
    assert (seen.sum() / len(seen)) - 2 < seen.min(), "no record is left behind"
    return result


def test_servers_and_workers_come_and_go_and_no_step_is_lost_or_made_twice(start, logdir):
    command, address = run(
        *(start, logdir, COUNTED, "--async", "--ps", 1, "--mirror-secs", 0.5, *ENDLESS),
        *("--save-checkpoint-secs", 0),
    )
    until(lambda: step_of(address) >= 20)
    said = scale(start, address, "--ps", 2, "--workers", 3)
    assert "workers: 3, parameter servers: 2" in said
    assert "steps stood still" in said
    assert all(servers(address)[i] > 0 for i in (0, 1)), "the model is spread over them"

    step = step_of(address)
    until(lambda: step_of(address) >= step + 60)
    assert "steps stood still" in scale(start, address, "--ps", 1, "--workers", 2)
    assert sorted(servers(address)) == [0]
    status = status_of(address)
    assert (status.resizes, status.recoveries) == (2, 0)
    assert not list(logdir.glob("model.ckpt-*")), "nothing went through a file"
    until(lambda: step_of(address) >= status.global_step + 60)
    assert stop_and_check(command, logdir)["ps"] == 1


@pytest.mark.faults
@pytest.mark.parametrize("storage", ["plain", "flat"])
def test_a_sync_job_that_is_scaled_ends_with_the_weights_of_one_that_is_not(
    start, logdir, tmp_path, storage
):
    # As many as a slow machine makes while processes start.
    steps, options = 2000, ("--sync", "--ps", 2, "--storage", storage, "--no-eval")
    command, address = run(
        *(start, logdir, KNOWN, "--max-steps", steps, *options, *SLOW),
    )
    until(lambda: step_of(address) >= 20)
    scale(start, address, "--ps", 4)
    until(lambda: step_of(address) >= 100)
    scale(start, address, "--ps", 1)
    assert command.wait() == 0
    calm, _ = run(start, tmp_path / "calm", KNOWN, "--max-steps", steps, *options)
    assert calm.wait() == 0

    scaled, undisturbed = (
        tf.train.load_checkpoint(result_of(folder)["checkpoint"])
        for folder in (logdir, tmp_path / "calm")
    )
    names = scaled.get_variable_to_shape_map()
    assert set(names) == set(undisturbed.get_variable_to_shape_map())
    assert any("Momentum" in name for name in names)
    for name in names:
        np.testing.assert_allclose(
            scaled.get_tensor(name), undisturbed.get_tensor(name), rtol=1e-5, err_msg=name
        )


@pytest.mark.faults
def test_a_server_that_was_added_may_be_lost_and_a_chief_that_follows_knows_of_it(start, logdir):
    command, address = run(
        *(start, logdir, COUNTED, "--async", "--ps", 1, "--mirror-secs", 0.5, *ENDLESS)
    )
    until(lambda: step_of(address) >= 20)
    scale(start, address, "--ps", 2)
    until(lambda: (s := status_of(address)) and s.restore_step >= s.resizes, "a restore point")
    chief, *_ = (p for name, p in command.children().items() if name.startswith("chief"))
    os.kill(chief.pid, signal.SIGKILL)
    until(lambda: (s := status_of(address)) and s.phase == "training", "the chief is back")
    assert sorted(servers(address)) == [0, 1]

    added = next(t for t in status_of(address).tasks if t.role == "ps" and t.index == 1)
    os.kill(added.pid, signal.SIGKILL)
    until(lambda: (s := status_of(address)) and s.recoveries == 1, "a recovery")
    step = step_of(address)
    until(lambda: step_of(address) >= step + 40)
    stop_and_check(command, logdir)
