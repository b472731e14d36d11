"""Fixtures of the command line's tests: commands in this process or one of their own, and jobs."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from paramserve.chief.membership.membership import Membership
from paramserve.chief.process import job_config
from paramserve.chief.services.membership_servicer import MembershipServicer
from paramserve.chief.services.server import ControlServer
from paramserve.chief.services.status_servicer import StatusServicer
from paramserve.chief.state import JobState
from paramserve.cli.app import app
from paramserve.jobs.options import JobOptions

# Wide enough that no table wraps, and without colours.
PLAIN = {"COLUMNS": "200", "TERMINAL_WIDTH": "200", "NO_COLOR": "1", "TERM": "dumb"}


@pytest.fixture
def invoke():
    """Runs a command in this process; gives `exit_code`, `stdout` and `stderr`."""
    return _invoke_with(PLAIN)


@pytest.fixture
def invoke_narrow():
    """Calls `invoke` with 80 columns."""
    return _invoke_with({**PLAIN, "COLUMNS": "80", "TERMINAL_WIDTH": "80"})


def _invoke_with(env):
    runner = CliRunner(env=env)
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def run():
    """Runs a command in a process of its own, as roles need it; they end their process."""

    def run(*arguments, env=None, timeout=120):
        environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
        return subprocess.run(
            [sys.executable, "-m", "paramserve", *(str(argument) for argument in arguments)],
            env={**environment, **PLAIN, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def job():
    """A job's control plane that serves, with its state for the test to set."""
    options = JobOptions(model="m.py:build", logdir="runs/census", num_ps=1, max_steps=2000)
    state = JobState(options, "job-1", Membership(num_ps=1, lease_secs=60.0))
    servicer = MembershipServicer(state, job_config(options, "job-1"))
    server = ControlServer(servicer, StatusServicer(state), 0)
    server.start()
    yield SimpleNamespace(state=state, address=f"127.0.0.1:{server.port}")
    server.stop(0.1)
