"""Resources that sessions and servers leak in processes that survive many recoveries."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from support.waiting import until

from .conftest import LINEAR, Command, find_chief_or_none, status_of

RESTLESS = Path(__file__).parent / "restless_chief.py"
MIB = 2**20


@dataclass(frozen=True)
class Use:
    """The resources of a process."""

    threads: int
    files: int
    resident: int

    @classmethod
    def of(cls, pid):
        process = psutil.Process(pid)
        return cls(process.num_threads(), process.num_fds(), process.memory_info().rss)


@pytest.fixture
def restless_job(start, logdir, tmp_path):
    """A job of real processes, and a setting for how often all its sessions are reopened."""
    wanted = tmp_path / "wanted"
    wanted.write_text("0")
    options = (
        *("--heartbeat-secs", 0.1, "--lease-secs", 5, "--max-steps", 10_000_000),
        *("--save-checkpoint-secs", 0, "--mirror-secs", 0.5),
    )

    def begin(mode):
        arguments = ("chief", LINEAR, "--ps", 2, "--port", 0, "--logdir", logdir, mode, *options)
        command = RestlessCommand(
            list(map(str, arguments)), tmp_path / "chief.log", {"RESTLESS": str(wanted)}
        )
        commands.append(command)
        address = until(lambda: find_chief_or_none(logdir))
        for _ in range(2):
            start("ps", "--chief", address)
        start("worker", LINEAR, "--chief", address, "--param", "slow=0.01")
        return address, wanted

    commands = []
    yield begin
    for command in commands:
        command.end()


class RestlessCommand(Command):
    """The same command, of another program."""

    program = (str(RESTLESS),)


def uses_after(recoveries, address, wanted):
    """Returns the resources of chief, parameter servers and worker after so many recoveries."""
    wanted.write_text(str(recoveries))
    until(lambda: is_through(address, recoveries), f"{recoveries} recoveries", 240)
    time.sleep(3)  # What is closed in the background.
    status = status_of(address)
    assert status.phase == "training"
    pids = {f"{task.role}:{task.index}": task.pid for task in status.tasks}
    pids["chief:0"] = chief_pid()
    return {task: Use.of(pid) for task, pid in pids.items()}


def is_through(address, recoveries):
    status = status_of(address)
    return status and status.generation == recoveries + 1 and status.phase == "training"


def chief_pid():
    [pid] = [
        process.pid
        for process in psutil.Process(os.getpid()).children()
        if process.status() != psutil.STATUS_ZOMBIE and str(RESTLESS) in process.cmdline()
    ]
    return pid


def show(before, after, recoveries):
    for task in sorted(after):
        growth = (after[task].resident - before[task].resident) / recoveries
        print(task, before[task], after[task], f"{growth / 1024:.0f} KiB each", file=sys.stderr)


def check(before, after, recoveries, most_bytes):
    show(before, after, recoveries)
    for task in after:
        # The pools of TensorFlow and gRPC start and end some of their threads as they like.
        assert after[task].threads <= before[task].threads + 8, task
        assert after[task].files <= before[task].files + 8, task
        growth = after[task].resident - before[task].resident
        assert growth <= recoveries * most_bytes + 32 * MIB, task


def test_ten_recoveries_leave_nothing_behind(restless_job):
    address, wanted = restless_job("--sync")
    before = uses_after(5, address, wanted)
    check(before, uses_after(15, address, wanted), 10, MIB)


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["--sync", "--async"])
def test_a_hundred_recoveries_leave_nothing_behind(restless_job, mode):
    address, wanted = restless_job(mode)
    before = uses_after(20, address, wanted)
    check(before, uses_after(120, address, wanted), 100, MIB // 4)
