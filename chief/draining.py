"""Draining of parameter servers that gave notice: their parameters are saved, then they leave.

A session names its parameter servers, so a generation ends with one of them in any case. It ends
here at a moment of the chief's choice: between two steps, once a restore point of just that moment
is there, and if possible not before another server stands by.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import tensorflow as tf

from ..cluster.deadline import Deadline, call_in_background, has_ended
from ..cluster.spec import Role
from ..errors import JobFailed
from ..reasons import reason_of
from .checkpoints.checkpoints import PAUSE_SECS, CheckpointService
from .checkpoints.mirrors import MirrorService
from .membership.notices import Notice
from .membership.tasks import TaskState
from .state import JobState

log = logging.getLogger(__name__)

# Of a notice: how long a replacement gets to come. The rest is for the restore point.
REPLACEMENT_SHARE = 0.5
# Share of the rest of a notice for the restore point.
_SAVE_SHARE = 0.9


class HandedOver(Exception):
    """This chief leaves, and the tasks of its job wait for the next one."""


class Draining:
    """Drains parameter servers that gave notice.

    Args:
        state: The job.
        checkpoints: Saves the model, if it is not mirrored.
        mirrors: Restore points in memory, if there are any.
        paused: Makes a context in which no step is applied, given the seconds to wait for it; None:
            workers are not held, and are told instead that their generation is over.
        awaits_replacement: True if a supervisor starts another server as soon as one gave notice.
    """

    def __init__(
        self,
        state: JobState,
        checkpoints: CheckpointService,
        mirrors: MirrorService | None,
        paused: Callable[[float], AbstractContextManager[Any]] | None,
        awaits_replacement: bool,
    ) -> None:
        self._state = state
        self._checkpoints = checkpoints
        self._mirrors = mirrors
        self._paused = paused
        self._awaits_replacement = awaits_replacement

    def is_due(self) -> bool:
        """Returns whether a server has given notice, and there is nothing left to wait for."""
        pending = self._state.notices.pending()
        if not pending or not self._awaits_replacement:
            return bool(pending)
        servers = self._state.membership.alive(Role.PS)
        spares = sum(record.state is TaskState.SPARE for record in servers)
        return spares >= len(pending) or any(map(_is_patience_over, pending))

    def drain(self, before_saving: Callable[[], None]) -> str:
        """Saves the parameters of servers that gave notice, then releases them.

        Training over this generation is over with that.

        Args:
            before_saving: Called when no step is applied any more.

        Returns:
            The servers that were released, for people.
        """
        notices = self._state.notices
        pending = notices.pending()
        left = min(notice.deadline.remaining_secs() for notice in pending)
        deadline = Deadline.after(_SAVE_SHARE * left)
        self._state.save_checkpoint = None
        self._stop_timers(deadline)
        with self._no_steps(deadline):
            before_saving()
            lost = frozenset(notice.record.task.index for notice in pending)
            try:
                self._keep(lost, deadline)
            except (JobFailed, TimeoutError, tf.errors.OpError) as error:
                log.warning("no restore point before a server goes: %s", reason_of(error))
            names = ", ".join(str(notice.record.task) for notice in pending)
            notices.release(pending)
        return f"{names} left on notice"

    def _stop_timers(self, deadline: Deadline) -> None:
        """Stops all timers that could hold the steps meanwhile."""
        if self._mirrors is not None:
            self._mirrors.stop()
        self._checkpoints.stop(max_wait_secs=deadline.remaining_secs() / 2)

    @contextmanager
    def _no_steps(self, deadline: Deadline) -> Iterator[None]:
        if self._paused is not None:
            with self._paused(min(PAUSE_SECS, deadline.remaining_secs())):
                yield
            return
        membership = self._state.membership
        membership.mark_unready()
        for task in membership.await_no_sessions(deadline.remaining_secs() / 2):
            log.warning("%s has not given up its step", task)
        yield

    def _keep(self, lost: frozenset[int], deadline: Deadline) -> None:
        """Takes a restore point that outlives the loss of some servers."""
        mirrors = self._mirrors
        if mirrors is not None and mirrors.would_survive(lost):
            call = call_in_background("last-mirror", mirrors.take)
            if not has_ended(call, deadline.remaining_secs()):
                raise TimeoutError("it takes longer than the notice")
            log.info("restore point at step %d", call.result().global_step)
            return
        self._checkpoints.save(quiet=True, max_wait_secs=deadline.remaining_secs())


def _is_patience_over(notice: Notice) -> bool:
    deadline = notice.deadline
    return deadline.remaining_secs() <= (1 - REPLACEMENT_SHARE) * deadline.max_wait_secs
