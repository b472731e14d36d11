"""Lost workers whose processes still live."""

from __future__ import annotations

import time
from collections.abc import Callable

from .interface import ProcessHandle


class Overdue:
    """Times since which workers are lost to the chief. A frozen worker ends by itself if it can.

    Args:
        patience_secs: Seconds that it has for that.
        clock: Seconds from any origin.
    """

    def __init__(self, patience_secs: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_secs = patience_secs
        self._clock = clock
        self._joined: dict[tuple[str, int], ProcessHandle] = {}
        self._since: dict[tuple[str, int], float] = {}

    def is_to_be_killed(self, task: tuple[str, int], handle: ProcessHandle, state: str) -> bool:
        """Returns whether a running process has had its time to end.

        Args:
            task: Its role and index.
            handle: The process.
            state: The chief's state of the task.
        """
        if state == "up":
            self._joined[task] = handle
        # Until a new process has joined, the state is that of the former one.
        is_lost = state == "lost" and self._joined.get(task) is handle
        if task[0] != "worker" or not is_lost:
            self._since.pop(task, None)
            return False
        since = self._since.setdefault(task, self._clock())
        return self._clock() - since > self._patience_secs
