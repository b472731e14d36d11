"""Settings of all tests: quiet, small processes, and nothing left behind."""

import os

import pytest

from support.clock import Clock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# One for all jobs, so that tests can call each of them by its address.
os.environ.setdefault("PARAMSERVE_TOKEN", "0123456789abcdef" * 4)


@pytest.fixture
def clock():
    return Clock()
