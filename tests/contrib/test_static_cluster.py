"""`contrib.training.train` on an ordinary cluster of TensorFlow servers, one process a task.

A worker comes long before the others; a parameter server is killed and comes back.
"""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tensorflow as tf

TASK = Path(__file__).with_name("static_cluster_task.py")
LAST_STEP = 500
# Long, since importing TensorFlow takes long where many do it at once.
WAIT_SECS = 200.0


class Task:
    """A process, with what it has told so far."""

    def __init__(self, job, **options):
        self.told = []
        self.errors = ""
        command = [sys.executable, str(TASK), json.dumps({"job": job, "index": 0, **options})]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.told.append(json.loads(line))

    def _read_errors(self):
        for line in self.process.stderr:
            self.errors += line

    def events(self, name):
        return [event for event in list(self.told) if event["event"] == name]

    def wait_for(self, name, and_for=lambda: True):
        deadline = time.monotonic() + WAIT_SECS
        while time.monotonic() < deadline:
            if self.events(name) and and_for():
                return
            assert self.process.poll() is None, self.errors
            time.sleep(0.05)
        pytest.fail(f"no {name!r} within {WAIT_SECS} s; stderr: {self.errors}")

    def exit_code(self):
        code = self.process.wait(WAIT_SECS)
        for reader in self._readers:
            reader.join(WAIT_SECS)
        return code

    def kill(self):
        self.process.kill()
        self.exit_code()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()


@pytest.fixture(scope="module")
def start_task():
    tasks = []

    def start(*args, **options):
        tasks.append(Task(*args, **options))
        return tasks[-1]

    yield start
    for task in tasks:
        task.kill()


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cluster") / "model")


def saved_step(logdir):
    """The global step of the newest checkpoint, by its name; 0 when there is none."""
    return int((tf.train.latest_checkpoint(logdir) or "-0").rpartition("-")[2])


@pytest.fixture(scope="module")
def story(start_task, free_ports, logdir):
    """Worker, then chief and parameter server, training, death and return of the latter, end."""
    ports = free_ports(3)
    cluster = {
        job: [f"127.0.0.1:{port}"]
        for job, port in zip(("ps", "chief", "worker"), ports, strict=True)
    }
    options = {
        "cluster": cluster,
        "logdir": logdir,
        "last_step": LAST_STEP,
        "step_secs": 0.01,
        "max_wait_secs": WAIT_SECS,
    }
    worker = start_task("worker", **options)
    worker.wait_for("up")
    ps = start_task("ps", cluster=cluster)
    chief = start_task("chief", **options)
    chief.wait_for("step", and_for=lambda: saved_step(logdir) > 0)
    worker.wait_for("step")
    ps.kill()
    killed_at = time.time()
    start_task("ps", cluster=cluster)
    codes = chief.exit_code(), worker.exit_code()
    assert codes == (0, 0), chief.errors + worker.errors
    return {"chief": chief, "worker": worker, "killed_at": killed_at}


def test_a_worker_that_came_early_starts_right_after_its_chief(story):
    chief_began = story["chief"].events("step")[0]["time"]
    worker_began = story["worker"].events("step")[0]["time"]
    # TensorFlow's own creator would have looked again after 30 s.
    assert worker_began - chief_began < 15


def test_both_train_one_model(story):
    """The global step counts the steps of both."""
    counts = {}
    for role in ("chief", "worker"):
        restart = story[role].events("session")[-1]
        steps = story[role].events("step")
        counts[role] = len([step for step in steps if step["time"] > restart["time"]])
    assert min(counts.values()) > 10
    restored = story["chief"].events("session")[-1]["step"]
    assert sum(counts.values()) == pytest.approx(LAST_STEP - restored, abs=10)


def test_after_the_death_of_a_parameter_server_both_go_on_from_the_checkpoint(story, logdir):
    for role in ("chief", "worker"):
        first, *_, last = story[role].events("session")
        assert first["time"] < story["killed_at"] < last["time"]
        assert last["step"] > 0
        assert story[role].events("step")[-1]["step"] >= LAST_STEP - 2
    assert saved_step(logdir) >= LAST_STEP


def test_the_model_has_learned(story):
    for role in ("chief", "worker"):
        [done] = story[role].events("done")
        assert done["loss"] < 0.05
