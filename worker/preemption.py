"""Preemption notice of a worker: the time that it may take to leave."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ..cluster.deadline import Deadline

log = logging.getLogger(__name__)

# Of the notice: how long the step under way gets. The rest is for leaving.
STEP_SHARE = 0.6
_LOOK_SECS = 0.2


class NoticeWatch:
    """Watch that cancels the current step if it takes too much of a preemption notice.

    Args:
        stop: Set when the process is asked to end.
        grace_secs: How long it can stay then.
        give_up: Called when the step under way takes too long, in a thread of this object.
    """

    def __init__(
        self, stop: threading.Event, grace_secs: float, give_up: Callable[[], None]
    ) -> None:
        self._stop = stop
        self._grace_secs = grace_secs
        self._give_up = give_up
        self._deadline: Deadline | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notice-watch", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it: there are no more steps."""
        self._ended.set()

    @property
    def is_running(self) -> bool:
        """True if the thread lives."""
        return self._thread.is_alive()

    def remaining_secs(self) -> float:
        """Returns the seconds that the process can still stay, once it is asked to end."""
        return self._deadline.remaining_secs() if self._deadline else self._grace_secs

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_SECS):
            if self._ended.is_set():
                return
        self._deadline = Deadline.after(self._grace_secs)
        log.info("this process is asked to end, and can stay for %g s", self._grace_secs)
        step_secs = STEP_SHARE * self._grace_secs
        if not self._ended.wait(step_secs):
            log.warning("the step under way takes longer than %g s and is given up", step_secs)
            self._give_up()
