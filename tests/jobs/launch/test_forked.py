"""A fork server that loads and calls what it is told to."""

import os
import signal
from pathlib import Path

import pytest

from paramserve.jobs.launch.forked import ForkServer

PROGRAM = """
import os, sys, time

loaded_in = os.getpid()
print("loaded with", os.environ["LEVEL"], file=sys.stderr)

def call(deed, *arguments):
    print(*arguments, os.environ.get("COLOR"), os.getpid() == loaded_in, flush=True)
    deeds = {"return": int, "fail": lambda: 1 / 0, "exit": lambda: sys.exit(3)}
    deeds.get(deed, lambda: time.sleep(600))()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    (folder / "program.py").write_text(PROGRAM)
    (folder / "slow_library.py").write_text("import sys; print('library', file=sys.stderr)")
    env = {"PYTHONPATH": str(folder), "LEVEL": "2"}
    server = ForkServer("program:call", ("slow_library",), env)
    yield server
    server.close()


@pytest.fixture
def call(server, tmp_path):
    log = tmp_path / "log"

    def call(*arguments):
        return server.start(arguments, str(log), {**os.environ, "COLOR": "green"}), log

    return call


def test_modules_are_loaded_once_and_the_function_is_called_in_a_process_of_its_own(call):
    first, log = call("return", "a", "b c")
    assert first.wait(60) == 0
    assert log.read_text() == "library\nloaded with 2\na b c green False\n"
    second, _ = call("return")
    assert second.wait(60) == 0
    assert log.read_text().splitlines()[3:] == ["green False"]
    assert first.pid != second.pid


def test_the_exit_code_says_how_the_function_ended(call):
    failed, log = call("fail")
    assert failed.wait(60) == 1
    assert "ZeroDivisionError" in log.read_text()
    left, _ = call("exit")
    assert left.wait(60) == 3


def test_a_process_ends_when_it_is_told_to(server, call):
    process, _ = call("sleep")
    assert process.poll() is None
    parent = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) == os.getpid() != server.pid
    process.end()
    assert process.poll() == -signal.SIGKILL
    process.end()
