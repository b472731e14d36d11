"""One measurement: its outcome, failures and hangs, and nothing left over."""

import os
import subprocess

import pytest

from paramserve.benchmarks.descendants import find_descendants
from paramserve.benchmarks.link import LimitedLink
from paramserve.benchmarks.network import Loopback
from paramserve.benchmarks.processes import Processes
from paramserve.benchmarks.systems import System, find_system
from paramserve.benchmarks.trial import Settings, Trial

QUICK = Settings(workers=1, secs=0.3, warmup_secs=0.1, max_wait_secs=60.0)
IMPATIENT = Settings(workers=2, secs=0.3, warmup_secs=0.1, max_wait_secs=1.0)


@pytest.fixture
def measure(processes):
    def measure(system, settings=QUICK, network=None, count=False):
        if isinstance(system, str):
            system = System("tried", "", system)
        trial = Trial(
            system, "variables-4", "async", settings, processes, network or Loopback(), count=count
        )
        return trial.run()

    return measure


def test_steps_are_counted_and_what_they_send(measure):
    outcome = measure(find_system("stock"), count=True)
    assert outcome.status == "ok", outcome.detail
    assert outcome.steps_per_sec > 0
    assert outcome.cpu_secs > 0
    # Each of the 4 variables crosses both ways, and a control signal for the global step.
    dense = 2 * (64 * 64 + 64) * 4
    assert outcome.counts["receives"] >= 8
    assert 2 * dense <= outcome.counts["received_bytes"] < 2 * dense + 100
    assert outcome.sent_bytes > 2 * dense


def test_rates_are_those_of_the_program(measure, write_program):
    program = write_program("regular", "task.train(lambda: time.sleep(0.02), None)")
    outcome = measure(program, Settings(workers=1, secs=0.5, warmup_secs=0.0))
    assert outcome.status == "ok", outcome.detail
    assert 10 < outcome.steps_per_sec <= 50


def test_a_program_that_fails_tells_why(measure, write_program):
    program = write_program("failing", "raise ValueError('the reason')")
    outcome = measure(program)
    assert outcome.status == "failed"
    assert "exit code 1" in outcome.detail
    assert "ValueError: the reason" in outcome.detail


def test_a_failure_in_the_window_counts(measure, write_program):
    body = """
        def step():
            time.sleep(0.01)
            if task.board().steps > 30 and task.role == "worker":
                raise ValueError("too late")
        task.train(step, None)
    """
    outcome = measure(write_program("late", body), Settings(workers=1, secs=5.0))
    assert outcome.status == "failed"
    assert "too late" in outcome.detail


def test_a_program_that_never_begins_hangs(measure, write_program):
    program = write_program("never", "time.sleep(1000)")
    outcome = measure(program, IMPATIENT)
    assert outcome.status == "hung"
    assert "no first step of ps-0, worker-0, worker-1" in outcome.detail


def test_a_program_that_stops_hangs(measure, write_program):
    body = """
        if task.role == "ps":
            task.serve()
        task.train(lambda: time.sleep(0 if task.board().steps < 10 else 1000), None)
    """
    outcome = measure(write_program("stopping", body), IMPATIENT)
    assert outcome.status == "hung"
    assert "worker-0 did not end its step in 1 s" in outcome.detail


def test_one_worker_that_stops_is_noticed(measure, write_program):
    body = """
        if task.role == "ps":
            task.serve()
        stopped = lambda: task.index == 1 and task.board().steps >= 1
        task.train(lambda: time.sleep(1000 if stopped() else 0.01), None)
    """
    outcome = measure(write_program("lonely", body), IMPATIENT)
    assert outcome.status == "hung"
    assert "worker-1 did no step" in outcome.detail


@pytest.fixture
def parent(write_program):
    """A program with a child in a session of its own, as Ray's daemons are."""
    body = """
        import subprocess
        daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        open(os.environ["PYTHONPATH"].split(":")[0] + "/daemon", "w").write(str(daemon.pid))
        task.train(lambda: time.sleep(0.01), None)
    """
    return write_program("parent", body)


def test_a_trial_leaves_nothing_running(measure, parent, programs):
    before = find_descendants()
    outcome = measure(parent)
    assert outcome.status == "ok", outcome.detail
    assert not os.path.exists(f"/proc/{(programs / 'daemon').read_text()}")
    assert find_descendants() == before


def test_processes_of_their_own_interpreter_leave_nothing_running(parent, programs):
    system = System("tried", "", parent, roles=("worker",), fork=False)
    before = find_descendants()
    with Processes() as processes:
        outcome = Trial(system, "variables-1", "async", QUICK, processes, Loopback()).run()
    assert outcome.status == "ok", outcome.detail
    assert not os.path.exists(f"/proc/{(programs / 'daemon').read_text()}")
    assert find_descendants() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_a_limited_link_limits(measure):
    with LimitedLink("20mbit") as link:
        outcome = measure(find_system("tcp"), network=link)
        assert outcome.status == "ok", outcome.detail
        # 33,280 bytes each way, one way after the other; the initial content of the bucket comes on
        # top.
        moved = outcome.steps_per_sec * 33_280
        assert 0.1 * 20e6 / 8 < moved < 1.6 * 20e6 / 8
        assert outcome.sent_bytes > 2 * 33_280
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert f"psbench{os.getpid()}" not in names.stdout
