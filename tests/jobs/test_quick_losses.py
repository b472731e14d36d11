"""Worker, parameter server and chief are lost one right after the other: all places fill again.

Leases are far longer than what a task waits for its place, so a job in which anything is left to
a lease fails.
"""

import os
import signal

import pytest

from support.waiting import until

from .conftest import LINEAR, find_chief_or_none, result_of, status_of, step_of

SLOW = ("--param", "slow=0.02")
WAITS = ("--lease-secs", 600, "--max-wait-secs", 120)


def pids(command, address):
    """The process of each place, and of the chief; None while one is empty."""
    status = status_of(address)
    chief = command.children().get("chief-0")
    if status is None or status.phase != "training" or chief is None:
        return None
    up = {f"{task.role}-{task.index}": task.pid for task in status.tasks if task.state == "up"}
    return {**up, "chief-0": chief.pid} if len(up) == 3 else None


def kill_in_turn(command, address, order):
    """Kills the processes of three places, and returns once each has another and steps are made."""
    before = until(lambda: pids(command, address), "all places are filled")
    step = step_of(address)
    for name in order:
        os.kill(before[name], signal.SIGKILL)

    def is_replaced():
        now = pids(command, address)
        return now and all(now[name] != before[name] for name in order)

    until(is_replaced, f"new processes after {', '.join(order)}")
    assert pids(command, address)["worker-1"] == before["worker-1"]
    until(lambda: step_of(address) > step, "steps are made again")


CHIEF_LAST = ("worker-0", "ps-0", "chief-0")
CHIEF_FIRST = ("chief-0", "worker-0", "ps-0")
CHIEF_BETWEEN = ("ps-0", "chief-0", "worker-0")


@pytest.mark.parametrize(
    ("mode", "orders"),
    [
        ("--sync", [CHIEF_LAST, CHIEF_FIRST]),
        pytest.param("--async", [CHIEF_FIRST, CHIEF_BETWEEN, CHIEF_LAST], marks=pytest.mark.faults),
    ],
)
def test_losses_in_quick_succession_leave_no_place_empty(start, logdir, mode, orders):
    command = start(
        *("run", LINEAR, "--launcher", "process", "--ps", 1, "--workers", 2, "--logdir", logdir),
        *(mode, "--max-steps", 100_000, "--max-restarts", 9, *WAITS, *SLOW),
    )
    address = until(lambda: find_chief_or_none(logdir))
    for order in orders:
        kill_in_turn(command, address, order)

    said = (logdir / "logs" / "chief-0.log").read_text()
    assert said.count("worker:0 is lost: its process has ended") >= len(orders)
    command.interrupt()
    assert command.wait() == 130
    result = result_of(logdir)
    assert result["reason"] == "stopped"
    if mode == "--sync":
        assert result["examples"] == 40 * result["global_step"]
