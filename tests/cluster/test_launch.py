"""Processes on this host: how they start, what they leave, and that none outlives its launcher."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from paramserve.cluster.launch.child import describe_exit
from paramserve.cluster.launch.interface import ProcessSpec
from paramserve.cluster.launch.process import ProcessLauncher

PATIENCE_SECS = 60.0


@pytest.fixture
def launcher():
    launcher = ProcessLauncher()
    yield launcher
    launcher.close()


@pytest.fixture
def dead_chief():
    """An address where no chief answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def make_spec(tmp_path):
    def make(*arguments, name="ps-0", **more):
        return ProcessSpec(name, arguments, str(tmp_path / "logs" / f"{name}.log"), **more)

    return make


@pytest.fixture
def patient_ps(make_spec, dead_chief):
    """A process that waits for its chief until somebody ends it."""
    return make_spec("ps", "--chief", dead_chief, "--max-wait-secs", "600")


def until(condition):
    deadline = time.monotonic() + PATIENCE_SECS
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def wait(process):
    until(lambda: process.poll() is not None)
    return process.poll()


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def has_blocked_sigterm(pid):
    """A role has done so by the time that it does anything else; before, it was set up."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:")]
    return bool(int(mask, 16) & 1 << signal.SIGTERM - 1)


def test_a_process_that_fails_leaves_its_exit_code_and_its_log(launcher, make_spec, tmp_path):
    ps = launcher.start(make_spec("ps", "--chief", "localhost"))
    assert wait(ps) == 2
    assert ps.log_tail(1) == ["error: --chief 'localhost' has no port: write it as 'host:port'"]
    assert (tmp_path / "logs" / "ps-0.log").is_file()
    ps.send_signal(signal.SIGTERM)  # It is gone already, which is no error.


def test_the_log_of_an_earlier_life_is_kept(launcher, make_spec):
    for port in ("70000", "70001"):
        ps = launcher.start(make_spec("ps", "--chief", "a:1", "--port", port))
        assert wait(ps) == 2
    said = [line for line in ps.log_tail(10) if line.startswith("error: --port")]
    assert [line.split()[2] for line in said] == ["70000:", "70001:"]
    assert len(ps.log_tail(1)) == 1


def test_a_process_is_told_its_host_and_its_environment(launcher, make_spec, dead_chief):
    spec = make_spec("ps", "--chief", dead_chief, env={"CUDA_VISIBLE_DEVICES": "-1"})
    process = psutil.Process(launcher.start(spec).pid)
    until(lambda: "paramserve" in process.cmdline())
    assert process.cmdline()[-5:] == ["ps", "--chief", dead_chief, "--host", "127.0.0.1"]
    assert process.environ()["CUDA_VISIBLE_DEVICES"] == "-1"
    # Ctrl-C in a terminal goes to the terminal's session.
    assert os.getsid(process.pid) == process.pid != os.getsid(0)


def test_a_process_that_was_killed_says_by_what(launcher, patient_ps):
    ps = launcher.start(patient_ps)
    assert ps.poll() is None
    ps.send_signal(signal.SIGKILL)
    assert wait(ps) == -signal.SIGKILL
    assert describe_exit(ps.poll()) == "killed by SIGKILL"


def test_closing_ends_every_process_and_what_it_left(launcher, patient_ps, make_spec, monkeypatch):
    before = set(Path(tempfile.gettempdir()).glob("paramserve-*"))
    processes = [launcher.start(patient_ps), launcher.start(make_spec("ps", "--chief", "x"))]
    wait(processes[1])
    launcher.close()
    assert [process.poll() for process in processes] == [-signal.SIGKILL, 2]
    assert set(Path(tempfile.gettempdir()).glob("paramserve-*")) <= before
    launcher.close()


def test_a_process_that_ignores_sigterm_is_ended_too(launcher, patient_ps):
    ps = launcher.start(patient_ps)
    os.kill(ps.pid, signal.SIGSTOP)
    launcher.close()
    assert ps.poll() == -signal.SIGKILL


LAUNCHING_PROGRAM = """
import sys, time
from paramserve.cluster.launch.interface import ProcessSpec
from paramserve.cluster.launch.process import ProcessLauncher

process = ProcessLauncher().start(ProcessSpec("ps-0", tuple(sys.argv[2:]), sys.argv[1]))
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("early", [False, True], ids=["later", "while it starts"])
def test_no_process_outlives_a_launcher_that_was_killed(patient_ps, early, tmp_path):
    parent = subprocess.Popen(
        [
            *(sys.executable, "-c", LAUNCHING_PROGRAM),
            *(patient_ps.log_path, *patient_ps.arguments),
        ],
        stdout=subprocess.PIPE,
        text=True,
        # What a killed launcher cannot clean up, the test does.
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        child = int(parent.stdout.readline())
        if not early:
            until(lambda: has_blocked_sigterm(child))
        assert not is_gone(child)
        parent.kill()
        parent.wait()
        until(lambda: is_gone(child))
    finally:
        parent.kill()
        parent.wait()


def test_a_file_on_the_processs_host_can_be_read(launcher, patient_ps, tmp_path):
    ps = launcher.start(patient_ps)
    (tmp_path / "job.json").write_text("{}")
    assert ps.read_file(str(tmp_path / "job.json")) == "{}"
    assert ps.read_file(str(tmp_path / "not there")) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-signal.SIGKILL, "killed by SIGKILL"),
        (-signal.SIGSEGV, "killed by SIGSEGV"),
    ],
)
def test_an_end_in_words(code, words):
    assert describe_exit(code) == words
