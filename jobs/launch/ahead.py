"""Replacements that start before the tasks with a notice have left."""

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
        """Starts the replacements that the job's status calls for."""
        for task in status.tasks:
            has_to_go = task.role == "ps" and task.leaves_in_secs > 0
            # An address is of one life: a successor of the task has another.
            if has_to_go and task.address not in self._seen:
                spare = self._start(len(self._seen))
                self._seen.add(task.address)
                self._waiting.append(spare)
                log.warning("%s:%d has to go; %s follows it", task.role, task.index, spare.name)

    def take(self) -> ProcessHandle | None:
        """Returns a process to watch in the place of an ended one; None: there is none.

        The choice does not matter: each is a spare, or has taken one of many places by now.
        """
        return self._waiting.pop(0) if self._waiting else None
