"""Calls of a membership as tests write them."""

from paramserve.chief.membership.membership import Wanted
from paramserve.cluster.applicant import Applicant


def register(membership, role, **more):
    """Takes a task in."""
    return membership.register(Applicant(role, **more))


def ask_ready(membership, min_generation, **more):
    """Asks for the view as a task that waits for it does, once."""
    wanted = Wanted(min_generation, **more)
    membership.note_wanted(wanted)
    return membership.find_ready(wanted)
