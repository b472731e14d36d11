"""Fixtures of the benchmarks' tests: processes that end with each module."""

import sys
import textwrap

import pytest

from paramserve.benchmarks.processes import Processes


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A folder in which the processes of a trial find modules."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("programs")
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        patch.setattr(sys, "path", [str(folder), *sys.path])
        yield folder


@pytest.fixture(scope="module")
def processes(programs):
    with Processes() as processes:
        yield processes


@pytest.fixture
def write_program(programs):
    """Writes a module with a `run(task)` of one's own; returns its name."""

    def write(name, body):
        code = "import os, time\ndef run(task):\n" + textwrap.indent(textwrap.dedent(body), "    ")
        (programs / f"{name}.py").write_text(code)
        return name

    return write
