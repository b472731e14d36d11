"""The parameter-server process: a TensorFlow server, and a lease on a place in the job."""

from __future__ import annotations

import logging
import os
import threading

from prometheus_client import Gauge

from ..protos import membership_pb2 as pb
from .applicant import Applicant
from .chief_client import JobStopping, MembershipClient
from .heartbeat import Heartbeat
from .metrics import MetricsServer, make_registry
from .notice import leave_on_notice
from .runtime import start_server
from .spec import Role
from .task_options import ParameterServerOptions

log = logging.getLogger(__name__)


def run_parameter_server(config: ParameterServerOptions, stop: threading.Event) -> bool:
    """Serves variables until the chief ends the job, or until it may go after `stop` is set.

    It knows no other task: sessions bring the cluster.

    Returns:
        Whether it left because of `stop`, and the job continues without it.

    Raises:
        ParamserveError: The chief never came, went away, or declared this task lost.
    """
    access = config.access
    server = start_server(config.host, config.port)
    registry = make_registry()
    metrics = MetricsServer(registry, config.host, config.metrics_port, access)
    generation = Gauge(
        "paramserve_ps_generation",
        "Newest generation that the chief told this server",
        registry=registry,
    )
    client = MembershipClient(config.chief, access)
    try:
        applicant = Applicant(
            Role.PS,
            address=server.address,
            incarnation=config.incarnation,
            index=config.index,
            metrics_address=metrics.address,
            pid=os.getpid(),
            spare=config.spare,
        )
        registration = client.register(applicant, max_wait_secs=config.max_wait_secs, stop=stop)
    except JobStopping:
        return stop.is_set()
    log.info("%s serves on %s", registration.task, server.address)
    heartbeat = Heartbeat(client, max_silence_secs=config.max_wait_secs)
    generation.set_function(lambda: float(heartbeat.latest.generation))
    heartbeat.start()
    was_asked = _wait(heartbeat, stop)
    has_left = was_asked and leave_on_notice(client, heartbeat, config.grace_secs)
    heartbeat.stop()
    metrics.stop()
    if not has_left:
        heartbeat.check()
        client.leave(pb.LeaveRequest.DONE)
    client.close()
    return has_left


def _wait(heartbeat: Heartbeat, stop: threading.Event) -> bool:
    """Waits until the chief ends the job; true when this process is asked to end before."""
    while not heartbeat.stopping.wait(0.2):
        if stop.is_set():
            return True
    return False
