"""Processes for tests of the library in an ordinary, static cluster."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

FORK_SERVER = Path(__file__).with_name("static_cluster_fork_server.py")
# Far above what anything takes; only so that a hang becomes a failure.
PATIENCE_SECS = 60.0


class ForkServer:
    """Starts tasks."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, str(FORK_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, order):
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the fork_server has died"
        return int(answer)

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Task:
    """A task's process, and what it has told so far."""

    def __init__(self, fork_server, log, task):
        self._fork_server = fork_server
        self._log = log
        self._pid = fork_server.ask({"log": str(log), "task": task})
        self._code = None

    @property
    def output(self):
        return self._log.read_text() if self._log.exists() else ""

    def events(self, name):
        told = [line for line in self.output.splitlines() if line.startswith('{"event"')]
        return [event for event in map(json.loads, told) if event["event"] == name]

    def steps(self):
        return [event["step"] for event in self.events("step")]

    def wait_for(self, name, at_least=1):
        deadline = time.monotonic() + PATIENCE_SECS
        while time.monotonic() < deadline:
            if len(self.events(name)) >= at_least:
                return
            assert Path(f"/proc/{self._pid}").exists(), self.output
            time.sleep(0.05)
        pytest.fail(f"no {name!r} within {PATIENCE_SECS} s: {self.output}")

    def exit_code(self):
        if self._code is None:
            self._code = self._fork_server.ask({"wait": self._pid})
        return self._code

    def kill(self):
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self.exit_code()


@pytest.fixture(scope="session")
def fork_server():
    fork_server = ForkServer()
    yield fork_server
    fork_server.close()


@pytest.fixture(scope="session")
def free_ports():
    """Finds ports for a static cluster, whose servers have to know each other's in advance."""

    def find(count):
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return [each.getsockname()[1] for each in sockets]

    return find


@pytest.fixture(scope="module")
def start_cluster(fork_server, free_ports, tmp_path_factory):
    """Gives a function that starts tasks of a new cluster: `start("worker", 1)`."""
    tasks = []

    def start_cluster(*, loop, ps=1, workers=1, last_step, step_secs=0.0, sync=False):
        folder = tmp_path_factory.mktemp(loop)
        roles = [("ps", ps), ("chief", 1), ("worker", workers)]
        ports = iter(free_ports(ps + 1 + workers))
        cluster = {job: [f"127.0.0.1:{next(ports)}" for _ in range(n)] for job, n in roles}

        def start(job, index=0):
            order = {
                "cluster": cluster,
                "job": job,
                "index": index,
                "loop": loop,
                "logdir": str(folder / "model"),
                "last_step": last_step,
                "step_secs": step_secs,
                "save_secs": 0.5,
                "sync": sync,
                "max_wait_secs": PATIENCE_SECS,
            }
            tasks.append(Task(fork_server, folder / f"{job}-{index}-{len(tasks)}.log", order))
            return tasks[-1]

        start.logdir = str(folder / "model")
        return start

    yield start_cluster
    for task in tasks:
        task.kill()
