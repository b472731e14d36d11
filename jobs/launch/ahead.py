"""Processes that are started for those that have to go, while they are still there."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ...protos import status_pb2 as pb
from .interface import ProcessHandle

log = logging.getLogger(__name__)


class StartedAhead:
    """Starts a spare for each parameter server that gave notice.

    Args:
        start: Starts the spare of a number, from 0.
    """

    def __init__(self, start: Callable[[int], ProcessHandle]) -> None:
        self._start = start
        self._seen: set[str] = set()
        self._waiting: list[ProcessHandle] = []

    def look(self, status: pb.JobStatus) -> None:
        """Starts what the status of the job calls for."""
        for task in status.tasks:
            has_to_go = task.role == "ps" and task.leaves_in_secs > 0
            # An address is of one life: what took the place of the task has another.
            if has_to_go and task.address not in self._seen:
                spare = self._start(len(self._seen))
                self._seen.add(task.address)
                self._waiting.append(spare)
                log.warning("%s:%d has to go; %s follows it", task.role, task.index, spare.name)

    def take(self) -> ProcessHandle | None:
        """One that is to be looked after in the place of a process that ended; None: there is none.

        Which one does not matter: each is a spare, or has taken a place among many by now.
        """
        return self._waiting.pop(0) if self._waiting else None
