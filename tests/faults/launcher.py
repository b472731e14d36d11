"""A launcher of processes that are on hosts of a network, or all on this one."""

import time
from dataclasses import replace
from pathlib import Path

from paramserve.jobs.launch.child import ChildProcess
from paramserve.jobs.launch.forked import ROLES, ForkServer

TESTS = Path(__file__).parents[1]
# How long processes may take to see by themselves that their job is over.
END_SECS = 15.0
# A process that starts so shortly before the end finds no chief: its launcher ends it.
START_SECS = 30.0


def make_fork_server():
    env = {"PYTHONPATH": str(TESTS), "TF_CPP_MIN_LOG_LEVEL": "2", "OPENBLAS_NUM_THREADS": "1"}
    return ForkServer("faults.in_network:run_in_network", ROLES, env)


class PlacedProcess(ChildProcess):
    """A process on its host."""

    def __init__(self, spec, place, fork_server):
        self.started = time.monotonic()
        arguments = (place.namespace or "", *spec.arguments)
        super().__init__(replace(spec, arguments=arguments), place.address, fork_server)


class ForkingLauncher:
    """A `Launcher`; each process is on the host that `place` gives for its name.

    Attributes:
        processes: All that were ever started, in order.
        survivors: Names of those that had not ended by themselves when the job was over.
    """

    def __init__(self, fork_server, place):
        self._fork_server = fork_server
        self._place = place
        self.processes = []
        self.survivors = []

    def start(self, spec):
        process = PlacedProcess(spec, self._place(spec.name), self._fork_server)
        self.processes.append(process)
        return process

    def newest(self, name):
        """The newest process of that name; None before there is one."""
        return next((p for p in reversed(self.processes) if p.name == name), None)

    def close(self):
        began = time.monotonic()
        deadline = began + END_SECS
        while any(p.poll() is None for p in self.processes) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = [p for p in self.processes if p.poll() is None]
        self.survivors = [p.name for p in left if began - p.started > START_SECS]
        for process in self.processes:
            process.end()
