"""`Applicant`: a task that asks to join a job."""

from __future__ import annotations

from dataclasses import dataclass

from .spec import Role


@dataclass(frozen=True)
class Applicant:
    """A task that asks to join a job.

    Attributes:
        role: What the process does; a parameter server or a worker.
        address: `host:port` of its TensorFlow server.
        incarnation: Unique to this life of the process.
        index: The place that it asks for; None takes the lowest free one.
        metrics_address: `host:port` of its metrics; empty when not served.
        pid: Its process id on its own host.
        spare: Whether a parameter server waits to take the place of one that is lost.
    """

    role: Role
    address: str
    incarnation: str
    index: int | None = None
    metrics_address: str = ""
    pid: int = 0
    spare: bool = False
