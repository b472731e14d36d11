"""Preemption notice of a parameter server: it stays until the chief has saved its parameters."""

from __future__ import annotations

import logging

import grpc

from ..protos import membership_pb2 as pb
from .chief_client import MembershipClient
from .deadline import Deadline
from .heartbeat import Heartbeat

log = logging.getLogger(__name__)

# Of the notice: for the last steps of a process that goes without the chief's word.
LAST_SHARE = 0.1
# The chief is asked again after so long: another one may have followed it.
_ASK_SECS = 1.0
_RETRY_SECS = 0.2


def leave_on_notice(client: MembershipClient, heartbeat: Heartbeat, grace_secs: float) -> bool:
    """Tells the chief that this task has to leave, and leaves the job once the chief agrees.

    First the chief saves or moves the task's parameters. A chief that does not answer in time is
    not waited for.

    Args:
        client: A registered client.
        heartbeat: Renews the task's lease meanwhile, and brings the permission to leave.
        grace_secs: Seconds that this process can stay.

    Returns:
        True if it has left the job; False if the job is ending.
    """
    task = client.registration.task
    log.info("%s is asked to end, and can stay for %g s", task, grace_secs)
    deadline = Deadline.after(grace_secs * (1 - LAST_SHARE))
    while deadline.remaining_secs():
        # Read before: a released task is not in the job any more, which sets this as well.
        is_ending = heartbeat.stopping.is_set()
        if heartbeat.may_go.is_set() or _may_go(client, deadline):
            log.info("%s leaves: its process was asked to end", task)
            return True
        if is_ending:
            return False
        heartbeat.may_go.wait(min(_ASK_SECS, deadline.remaining_secs()))
    log.warning("%s leaves without a word of the chief", task)
    client.leave(pb.LeaveRequest.PREEMPTED, max_wait_secs=LAST_SHARE * grace_secs)
    return True


def _may_go(client: MembershipClient, deadline: Deadline) -> bool:
    left = deadline.remaining_secs()
    try:
        return client.give_notice(left, min(_ASK_SECS, left))
    except grpc.RpcError as error:
        log.warning("no answer from the chief: %s", error.details())
        deadline.sleep(_RETRY_SECS)
        return False
