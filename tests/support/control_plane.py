"""The chief's services without a model, in a process: `python -m support.control_plane LOGDIR`.

The process prints its port, then serves until its input ends; leases run out as in a job.
"""

import subprocess
import sys
import threading
from pathlib import Path

import psutil

from paramserve.chief.input.file_counts import FileCounts
from paramserve.chief.membership.membership import Membership
from paramserve.chief.process import job_config
from paramserve.chief.services.membership_servicer import MembershipServicer
from paramserve.chief.services.server import ControlServer
from paramserve.chief.services.shards_servicer import ShardsServicer
from paramserve.chief.services.status_servicer import StatusServicer
from paramserve.chief.state import JobState
from paramserve.cluster.logdir.interface import open_logdir
from paramserve.jobs.options import JobOptions

TESTS = Path(__file__).parents[1]
LOOK_SECS = 0.1
END_SECS = 30.0


class ControlPlane:
    """The process, and what it needs of the machine.

    Args:
        logdir: Its log directory.
    """

    def __init__(self, logdir):
        command = [sys.executable, "-m", "support.control_plane", str(logdir)]
        self._process = psutil.Popen(
            command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = int(self._process.stdout.readline())
        self.address = f"127.0.0.1:{self.port}"

    @property
    def is_running(self):
        return self._process.poll() is None

    def memory_bytes(self):
        return self._process.memory_info().rss

    def descriptors(self):
        return self._process.num_fds()

    def stop(self):
        self._process.stdin.close()
        try:
            self._process.wait(END_SECS)
        except psutil.TimeoutExpired:
            self._process.kill()
            raise


def make_server(state, ledger):
    """Makes the server of a job's services, and the counts of its input's files."""
    files = FileCounts(
        *(open_logdir(state.options.logdir), state.membership),
        is_resumed=False,
        max_wait_secs=60.0,
        say=lambda _: None,
        is_interrupted=lambda: False,
    )
    server = ControlServer(
        MembershipServicer(state, job_config(state.options, "job-1")),
        StatusServicer(state),
        0,
        ShardsServicer(ledger, state.membership, files),
    )
    return server, files


def main(logdir):
    options = JobOptions(
        model="m.py:build", logdir=logdir, num_ps=2, heartbeat_secs=0.1, lease_secs=60.0
    )
    membership = Membership(num_ps=options.num_ps, lease_secs=options.lease_secs)
    state = JobState(options, "job-1", membership)
    server, _ = make_server(state, state.ledger)
    server.start()
    print(server.port, flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.wait(LOOK_SECS):
        membership.expire()
    server.stop(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
