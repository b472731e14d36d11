"""Processes for tests of the library in an ordinary, static cluster."""

import json
import os
from pathlib import Path

import pytest

from paramserve.jobs.launch.forked import ForkServer

from .ports import free_cluster
from .waiting import until

TESTS = Path(__file__).parents[1]
# Far above any normal duration; it only turns a hang into a failure.
PATIENCE_SECS = 60.0


class Task:
    """A task's process, and its reports so far."""

    def __init__(self, fork_server, log, task):
        self._log = log
        self._process = fork_server.start([json.dumps(task)], str(log), os.environ)

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
            assert self._process.poll() is None, self.output
            return False

        until(has_come, lambda: f"{name!r}: {self.output}", PATIENCE_SECS)

    def exit_code(self):
        return self._process.wait(PATIENCE_SECS)

    def kill(self):
        self._process.end()


@pytest.fixture(scope="session")
def fork_server():
    fork_server = ForkServer("support.static_cluster_task:run_task", (), {"PYTHONPATH": str(TESTS)})
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
