"""Processes on this host: how they start, what they leave, and that none outlives its launcher."""

import functools
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from paramserve.jobs.launch.ends import describe_exit
from paramserve.jobs.launch.interface import ProcessSpec
from paramserve.jobs.launch.process import ProcessLauncher
from support.ports import free_addresses
from support.role_processes import handed_options
from support.waiting import until

PATIENCE_SECS = 60.0


@pytest.fixture(scope="module")
def launcher():
    """For all tests that do not close it: it loads TensorFlow once."""
    launcher = ProcessLauncher()
    yield launcher
    launcher.close()


@pytest.fixture
def own_launcher():
    launcher = ProcessLauncher()
    yield launcher
    launcher.close()


@pytest.fixture
def dead_chief():
    """An address where no chief answers."""
    return free_addresses(1)[0]


@pytest.fixture
def make_spec(tmp_path):
    def make(*arguments, name="ps-0", env=None, niceness=0, **options):
        log = str(tmp_path / "logs" / f"{name}.log")
        return ProcessSpec(name, arguments, log, options, env=env or {}, niceness=niceness)

    return make


@pytest.fixture
def patient_ps(make_spec, dead_chief):
    """A process that waits for its chief until it is ended."""
    return make_spec("ps", chief=dead_chief, max_wait_secs=600)


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
    ps = launcher.start(make_spec("ps", chief="localhost"))
    assert wait(ps) == 2
    assert ps.log_tail(1) == ["error: --chief 'localhost' has no port: write it as 'host:port'"]
    assert (tmp_path / "logs" / "ps-0.log").is_file()
    ps.send_signal(signal.SIGTERM)  # It is gone already, which is no error.


def test_the_log_of_an_earlier_life_is_kept(launcher, make_spec):
    for port in (70000, 70001):
        ps = launcher.start(make_spec("ps", chief="a:1", port=port))
        assert wait(ps) == 2
    said = [line for line in ps.log_tail(10) if line.startswith("error: --port")]
    assert [line.split()[2] for line in said] == ["70000:", "70001:"]
    assert len(ps.log_tail(1)) == 1


def test_a_process_is_told_its_host_and_its_environment(launcher, make_spec, dead_chief):
    process = psutil.Process(launcher.start(make_spec("ps", chief=dead_chief)).pid)
    until(lambda: "paramserve" in process.cmdline())
    assert process.cmdline()[-3:-1] == ["ps", "--options"]
    assert handed_options(process.cmdline()) == {"chief": dead_chief, "host": "127.0.0.1"}
    # Ctrl-C in a terminal goes to the terminal's session.
    assert os.getsid(process.pid) == process.pid != os.getsid(0)

    ps = launcher.start(make_spec("ps", env={"PARAMSERVE_PORT": "no number"}))
    assert wait(ps) == 2
    assert any(line.startswith("error: PARAMSERVE_PORT") for line in ps.log_tail(20))
    assert "PARAMSERVE_PORT" not in os.environ


DRAWING_MODEL = """
import random

import numpy as np
import tensorflow as tf

server = tf.distribute.Server.create_local_server()
with tf.compat.v1.Session(server.target, graph=tf.Graph()) as session:
    tensor = tf.random.uniform([])
    [device] = [d for d in session.list_devices() if "CPU:0" in d.name]
    drawn = random.random(), np.random.rand(), session.run(tensor), device.incarnation
print("drawn", *drawn, "and that is all", flush=True)
"""


def test_what_processes_draw_at_random_differs(launcher, make_spec, tmp_path):
    """Although they were one process once. TensorFlow also numbers its servers at random."""
    model = tmp_path / "model.py"
    model.write_text(DRAWING_MODEL)
    workers = [
        launcher.start(make_spec("worker", f"{model}:build", chief="a:1", name=f"worker-{i}"))
        for i in range(2)
    ]
    drawn = [until(functools.partial(what_it_drew, worker)) for worker in workers]
    assert len(drawn[0]) == 4
    assert all(one != other for one, other in zip(*drawn, strict=True))
    for worker in workers:
        worker.end()


def what_it_drew(worker):
    lines = (line.split() for line in worker.log_tail(100))
    return next((w[1:5] for w in lines if w[:1] == ["drawn"] and w[-1:] == ["all"]), None)


def test_all_goes_on_without_the_process_that_others_are_forked_from(own_launcher, make_spec):
    before = set(psutil.Process().children())
    options = {"chief": "127.0.0.1:1", "max_wait_secs": 600}
    first = own_launcher.start(make_spec("ps", name="ps-0", **options))
    until(lambda: has_blocked_sigterm(first.pid))
    [server] = [p for p in set(psutil.Process().children()) - before if p.pid != first.pid]

    server.kill()
    until(lambda: is_gone(server.pid))
    assert first.poll() is None
    second = own_launcher.start(make_spec("ps", name="ps-1", **options))
    until(lambda: has_blocked_sigterm(second.pid))
    for process in (first, second):
        process.send_signal(signal.SIGKILL)
        assert wait(process) == -signal.SIGKILL


def test_a_process_that_was_never_forked_counts_as_killed(own_launcher, patient_ps):
    before = set(psutil.Process().children())
    ps = own_launcher.start(patient_ps)
    [server] = set(psutil.Process().children()) - before
    server.kill()  # It has only begun to load.
    assert wait(ps) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError, match="not started"):
        _ = ps.pid


def test_a_launcher_that_is_closed_at_once_leaves_nothing(own_launcher, patient_ps):
    """It was loading what it forks from; a hurried user's Ctrl-C does that."""
    ps = own_launcher.start(patient_ps)
    own_launcher.close()
    assert ps.poll() == -signal.SIGKILL
    ps.send_signal(signal.SIGTERM)


def test_what_cannot_be_loaded_is_said_in_the_log(own_launcher, patient_ps, tmp_path, monkeypatch):
    """And is no reason to try again, as after a kill."""
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no such library')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ps = own_launcher.start(patient_ps)
    assert wait(ps) == 1
    assert ps.log_tail(1) == ["ImportError: no such library"]


def test_a_launcher_works_on_when_another_one_of_the_same_process_is_closed(
    launcher, own_launcher, patient_ps, make_spec
):
    own_launcher.start(make_spec("ps", chief="x", name="ps-1"))
    own_launcher.close()
    ps = launcher.start(patient_ps)
    until(lambda: has_blocked_sigterm(ps.pid))
    assert psutil.Process(ps.pid).ppid() == os.getpid()


def test_a_process_stands_back_for_others_of_its_host(launcher, make_spec, dead_chief):
    options = {"chief": dead_chief, "max_wait_secs": 600}
    back = launcher.start(make_spec("ps", name="worker-0", niceness=5, **options))
    front = launcher.start(make_spec("ps", name="ps-0", **options))
    both = [psutil.Process(back.pid), psutil.Process(front.pid)]
    until(lambda: all("paramserve" in process.cmdline() for process in both))
    assert both[0].nice() == both[1].nice() + 5
    session = Path(f"/proc/{back.pid}/autogroup")
    if session.exists():  # Kernels with groups by session weigh only those.
        assert session.read_text().strip().endswith("nice 5")


def test_a_process_that_was_killed_says_by_what(launcher, patient_ps):
    ps = launcher.start(patient_ps)
    assert ps.poll() is None
    ps.send_signal(signal.SIGKILL)
    assert wait(ps) == -signal.SIGKILL
    assert describe_exit(ps.poll()) == "killed by SIGKILL"


def test_closing_ends_every_process_and_what_it_left(own_launcher, patient_ps, make_spec):
    launcher, before = own_launcher, set(Path(tempfile.gettempdir()).glob("paramserve-*"))
    processes = [launcher.start(patient_ps), launcher.start(make_spec("ps", chief="x"))]
    wait(processes[1])
    launcher.close()
    assert [process.poll() for process in processes] == [-signal.SIGKILL, 2]
    assert set(Path(tempfile.gettempdir()).glob("paramserve-*")) <= before
    launcher.close()


def test_a_process_that_ignores_sigterm_is_ended_too(own_launcher, patient_ps):
    ps = own_launcher.start(patient_ps)
    os.kill(ps.pid, signal.SIGSTOP)
    own_launcher.close()
    assert ps.poll() == -signal.SIGKILL


LAUNCHING_PROGRAM = """
import sys, time
from paramserve.jobs.launch.interface import ProcessSpec
from paramserve.jobs.launch.process import ProcessLauncher

log, chief = sys.argv[1:]
spec = ProcessSpec("ps-0", ("ps",), log, {"chief": chief, "max_wait_secs": 600})
process = ProcessLauncher().start(spec)
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("early", [False, True], ids=["later", "while it starts"])
def test_no_process_outlives_a_launcher_that_was_killed(patient_ps, early, tmp_path):
    parent = subprocess.Popen(
        [
            *(sys.executable, "-c", LAUNCHING_PROGRAM),
            *(patient_ps.log_path, patient_ps.options["chief"]),
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
