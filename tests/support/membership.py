"""Calls of a membership as tests write them."""

import grpc

from paramserve.chief.membership.membership import Wanted
from paramserve.cluster.applicant import Applicant
from paramserve.cluster.chief_client import LeaseLost


def register(membership, role, **more):
    """Takes a task in."""
    return membership.register(Applicant(role, **more))


def ask_ready(membership, min_generation, **more):
    """Asks for the view as a task that waits for it does, once."""
    wanted = Wanted(min_generation, **more)
    membership.note_wanted(wanted)
    return membership.find_ready(wanted)


def beat(client, report=None, **more):
    """Sends one heartbeat on a stream of its own; returns the news that answer it."""
    call = client.attend(iter([client.task_report(report, **more)]))
    try:
        return next(iter(call))
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise LeaseLost(error.details()) from error
        raise
    finally:
        call.cancel()
