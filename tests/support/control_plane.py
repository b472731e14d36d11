"""The chief's services without a model, in a process: `python -m support.control_plane LOGDIR`.

Prints its port, then serves until its input ends; leases run out as in a job.
"""

import sys
import threading

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

LOOK_SECS = 0.1


def main(logdir):
    options = JobOptions(
        model="m.py:build", logdir=logdir, num_ps=2, heartbeat_secs=0.1, lease_secs=60.0
    )
    membership = Membership(num_ps=options.num_ps, lease_secs=options.lease_secs)
    state = JobState(options, "job-1", membership)
    files = FileCounts(
        *(open_logdir(logdir), membership),
        is_resumed=False,
        max_wait_secs=60.0,
        say=lambda text: None,
        is_interrupted=lambda: False,
    )
    server = ControlServer(
        MembershipServicer(state, job_config(options, "job-1")),
        StatusServicer(state),
        0,
        ShardsServicer(state.ledger, membership, files),
    )
    server.start()
    print(server.port, flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.wait(LOOK_SECS):
        membership.expire()
    server.stop(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
