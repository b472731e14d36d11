"""The end of a job for its tasks: each is told of it, also after a network cut."""

from __future__ import annotations

from ..cluster.spec import Role
from .membership.membership import Membership
from .recovery import is_refused

# Seconds beyond those of heartbeats and leases.
MARGIN_SECS = 5.0
_LOOK_SECS = 0.2


def dismiss_all(membership: Membership, heartbeat_secs: float, lease_secs: float) -> None:
    """Tells all tasks that the job is over; returns once they have left, or cannot be reached.

    A task that is cut off or frozen is told when it is back; otherwise it would look for a chief.

    Args:
        membership: The tasks of the job.
        heartbeat_secs: Seconds between two heartbeats.
        lease_secs: Seconds after which a silent task counts as lost. A task that is silent for
            twice as long, and the margin, is not waited for.
    """
    membership.begin_stop(Role.WORKER)
    membership.await_gone(Role.WORKER, 2 * heartbeat_secs + MARGIN_SECS)
    membership.begin_stop(Role.PS)
    patience_secs = 2 * lease_secs + MARGIN_SECS
    membership.await_gone(Role.PS, patience_secs)
    while _may_be_back(membership, patience_secs):
        with membership.changed:
            membership.changed.wait(_LOOK_SECS)


def _may_be_back(membership: Membership, patience_secs: float) -> bool:
    """Returns whether a task whose lease ran out may still have a process, as far as visible."""
    return any(
        membership.heartbeat_age(record) < patience_secs and not is_refused(record.address)
        for record in membership.unaware()
    )
