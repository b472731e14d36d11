"""Processes for the fault tests, and the table of the outcomes."""

from pathlib import Path

import pytest

from .launcher import make_fork_server
from .table import FaultTable


def pytest_addoption(parser):
    parser.addoption(
        "--fault-table", metavar="FILE", help="Write what came of each fault, as Markdown."
    )
    parser.addoption("--random-faults", type=int, default=20, help="How many, in the random run.")
    parser.addoption("--random-seed", type=int, default=0, help="Of the random run.")


def pytest_configure(config):
    path = config.getoption("--fault-table")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FaultTable(Path(path)), "fault-table")


@pytest.fixture(scope="session")
def fork_server():
    fork_server = make_fork_server()
    yield fork_server
    fork_server.close()
