"""Real jobs whose workers share the input: the checkpoint has the count of every record."""

import os
import signal

import pytest
import tensorflow as tf

from support.waiting import until

from .conftest import MODELS, find_chief_or_none, result_of, status_of

COUNTED = f"{MODELS / 'counted.py'}:build"
SLOW = ("--param", "slow=0.02")


def run(start, logdir, *options):
    command = start(
        *("run", COUNTED, "--launcher", "process", "--workers", 2, "--logdir", logdir),
        *("--lease-secs", 3, *options),
    )
    return command, until(lambda: find_chief_or_none(logdir))


def seen(logdir):
    """Returns how many records were applied how often."""
    values = tf.train.load_variable(result_of(logdir)["checkpoint"], "seen")
    return {float(times): int((values == times).sum()) for times in sorted(set(values))}


def pid_of(address, role, index):
    tasks = {(t.role, t.index): t.pid for t in status_of(address).tasks if t.state == "up"}
    return tasks[role, index]


@pytest.mark.faults
def test_servers_and_workers_are_killed_and_every_record_counts_once_in_each_epoch(start, logdir):
    command, address = run(
        *(start, logdir, "--sync", "--ps", 2, "--spares", 1, "--mirror-secs", 0.5),
        *("--param", "epochs=3", "--param", "records=4800", *SLOW),
    )
    until(lambda: (s := status_of(address)) and s.restore_step >= 20, "a restore point")
    os.kill(pid_of(address, "ps", 0), signal.SIGKILL)
    until(lambda: (s := status_of(address)) and s.recoveries == 1, "a recovery")
    os.kill(pid_of(address, "worker", 1), signal.SIGKILL)

    assert command.wait() == 0
    result = result_of(logdir)
    assert result["reason"] == "end_of_input"
    counts = tf.train.load_variable(result["checkpoint"], "paramserve/input")
    assert set(counts) == {3}
    # A step may be the mean over more gradients than two, if tokens had to be issued again.
    assert all(2.0 < times <= 3.0 for times in seen(logdir))
    assert result["examples"] == 3 * 4800


def test_poison_ends_a_job_by_name_and_the_same_command_goes_on_once_it_is_allowed(start, logdir):
    options = ("--async", "--ps", 1, "--param", "epochs=2", "--param", "poison=7", *SLOW)
    command, _ = run(start, logdir, *options)
    assert command.wait() == 1
    assert "error: --max-bad-records 0: records " in command.output
    assert "the last time because record 7: ValueError: record 7 is poison" in command.output

    again, address = run(start, logdir, *options, "--max-bad-records", 20)
    until(lambda: (s := status_of(address)) and s.bad_records)
    assert again.wait() == 0
    # Record 7 shares a batch with nine others, which differ between the two epochs.
    result = result_of(logdir)
    assert result["reason"] == "end_of_input"
    assert result["bad_records"] == 20
    assert [each["records"] for each in result["set_aside"]] == [10, 10]
    assert "input: 20 records were left out" in again.output
    counts = seen(logdir)
    assert sum(counts.values()) == 1200
    assert sum(times * records for times, records in counts.items()) == 2 * (1200 - 10)
    assert max(counts) == 2.0
