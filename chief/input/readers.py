"""The tasks that ask for shards: the times of their requests, and of unanswered ones.

Pure bookkeeping without a lock: the ledger that owns it uses it in one thread.
"""

from __future__ import annotations

from collections.abc import Callable

from ...cluster.spec import Task

# A task that has not asked for so long is not counted as a possible reader of another's shard.
READER_SECS = 60.0


class Readers:
    """The readers of a dataset.

    Args:
        clock: Seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked: dict[Task, float] = {}
        self._waits: dict[Task, float] = {}

    def note_request(self, task: Task, *, is_granted: bool) -> None:
        """Notes that a task has asked for a shard, and whether it got one."""
        self._asked[task] = self._clock()
        if is_granted:
            self._waits.pop(task, None)
        else:
            self._waits.setdefault(task, self._clock())

    def remove(self, task: Task) -> None:
        """Forgets a task that is gone."""
        self._asked.pop(task, None)

    def end_wait(self, task: Task) -> None:
        """Notes that a task does not wait any more."""
        self._waits.pop(task, None)

    def end_waits(self) -> None:
        """Notes that no task waits any more."""
        self._waits.clear()

    def waiting(self, secs: float) -> set[Task]:
        """Returns the tasks that have waited for a shard for so many seconds."""
        now = self._clock()
        return {task for task, since in self._waits.items() if now - since >= secs}

    def is_only(self, task: Task) -> bool:
        """Returns whether no other task has asked for a shard lately."""
        since = self._clock() - READER_SECS
        return not any(at > since for other, at in self._asked.items() if other != task)
