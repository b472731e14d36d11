"""Fixtures of the tests of `deploy/`: its files, and a real job that runs meanwhile."""

import json
import os
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from paramserve.jobs.launch.parent import PARENT_VARIABLE
from support.waiting import until

ROOT = Path(__file__).parents[2]
MODEL = f"{Path(__file__).parent / 'linear_model.py'}:build"
# Far above any normal duration; it only turns a hang into a failure.
PATIENCE_SECS = 120.0
TASKS = ("chief:0", "ps:0", "ps:1", "worker:0", "worker:1")


@contextmanager
def running(command, log, more=()):
    """A process for as long as the context lasts, and never longer than this one."""
    env = {**os.environ, PARENT_VARIABLE: str(os.getpid()), **dict(more)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def paramserve(*arguments):
    """A `paramserve` command line, for this interpreter."""
    return [sys.executable, "-m", "paramserve", *map(str, arguments)]


def read_url(url, context=None):
    with urllib.request.urlopen(url, timeout=10, context=context) as response:
        return response.read().decode()


def wait_until(condition, what, seconds=PATIENCE_SECS):
    """Calls `until` with a condition that raises OSError as long as there is no answer."""
    return until(condition, what, seconds, look_secs=0.2, ignored=OSError)


class LiveJob:
    """A job that trains until the tests are done with it."""

    def __init__(self, logdir):
        self.logdir = logdir

    @property
    def targets(self):
        """The chief's targets for Prometheus: addresses by task, such as "ps:1"."""
        groups = json.loads((self.logdir / "metrics_targets.json").read_text())
        return {
            f"{group['labels']['role']}:{group['labels']['index']}": group["targets"][0]
            for group in groups
        }

    @property
    def job_id(self):
        return json.loads((self.logdir / "job.json").read_text())["job_id"]

    def metrics(self, task):
        """Returns the metrics of a task, in Prometheus's text format."""
        return read_url(f"http://{self.targets[task]}/metrics")

    def is_whole(self):
        """Returns whether every task is there and a checkpoint has been written."""
        if sorted(self.targets) != sorted(TASKS):
            return False
        lines = self.metrics("chief:0").splitlines()
        step = next(line for line in lines if line.startswith("paramserve_checkpoint_step "))
        return float(step.split()[1]) > 0


@pytest.fixture(scope="session")
def deploy():
    return ROOT / "deploy"


@pytest.fixture(scope="session")
def tracked():
    """The files of the repository: those that git tracks, or would if they were added."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for path in listing.stdout.splitlines() if (ROOT / path).exists()]


@pytest.fixture(scope="session")
def helpers():
    """The functions above: test modules cannot import from here."""

    class Helpers:
        root = ROOT
        patience_secs = PATIENCE_SECS
        paramserve = staticmethod(paramserve)
        read_url = staticmethod(read_url)
        running = staticmethod(running)
        wait_until = staticmethod(wait_until)

    return Helpers


# Of a module and no longer: it would take the processor from whatever is tested after it.
@pytest.fixture(scope="module")
def live_job(tmp_path_factory):
    """Two parameter servers and two workers; its folder lies where the configuration looks."""
    logdir = tmp_path_factory.mktemp("deploy") / "runs" / "default"
    logdir.mkdir(parents=True)
    options = ("--ps", 2, "--workers", 2, "--save-checkpoint-secs", 2, "--logdir", logdir)
    command = paramserve("run", MODEL, "--launcher", "process", *options)
    log = logdir / "run.log"
    with running(command, log) as run:
        job = LiveJob(logdir)
        wait_until(
            lambda: run.poll() is not None or job.is_whole(),
            lambda: f"{len(job.targets)} tasks; the log:\n{log.read_text()}",
        )
        assert run.poll() is None, log.read_text()
        yield job
        subprocess.run(paramserve("stop", "--logdir", logdir), check=True, timeout=60)
        assert run.wait(60) == 0, log.read_text()
