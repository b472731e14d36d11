"""Processes for tests of the library in an ordinary, static cluster."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .ports import free_cluster
from .waiting import until

FORK_SERVER = Path(__file__).with_name("static_cluster_fork_server.py")
# Far above any normal duration; it only turns a hang into a failure.
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
        assert answer, "the fork server has died"
        return int(answer)

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Task:
    """A task's process, and its reports so far."""

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
        def has_come():
            if len(self.events(name)) >= at_least:
                return True
            assert Path(f"/proc/{self._pid}").exists(), self.output
            return False

        until(has_come, lambda: f"{name!r}: {self.output}", PATIENCE_SECS)

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


@pytest.fixture(scope="module")
def start_cluster(fork_server, tmp_path_factory):
    """Gives a function that starts tasks of a new cluster: `start("worker", 1)`."""
    tasks = []

    def start_cluster(*, loop, ps=1, workers=1, last_step, step_secs=0.0, sync=False):
        folder = tmp_path_factory.mktemp(loop)
        cluster = free_cluster(ps=ps, chief=1, worker=workers)

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
