"""The end of training on the chief, and of its job: workers leave, the model is saved."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import tensorflow as tf

from ..cluster.spec import Role
from ..errors import JobFailed
from ..reasons import reason_of
from .aggregation import Aggregator
from .checkpoints.checkpoints import CheckpointService
from .membership.membership import Membership
from .membership.tasks import TaskState
from .outcomes import ServerLost
from .recovery import is_refused
from .state import JobContext, Phase

log = logging.getLogger(__name__)

# Seconds that workers may take to finish their step once they are told to stop.
WIND_DOWN_SECS = 30.0
# Share of the notice for the checkpoint of a chief that hands the job over.
HAND_OVER_SHARE = 0.8
_TICK_SECS = 0.1
# A worker that was told to stop has so many seconds before it gets a token for its step.
_TOKENLESS_SECS = 0.3
# Seconds beyond those of heartbeats and leases.
MARGIN_SECS = 5.0
_LOOK_SECS = 0.2


class Ending:
    """Winds a generation down.

    Args:
        job: The job.
        aggregator: Applies steps in sync mode; None in async mode.
        checkpoints: Saves the model.
        read_progress: Asks the parameter servers how far training is.
    """

    def __init__(
        self,
        job: JobContext,
        aggregator: Aggregator | None,
        checkpoints: CheckpointService,
        read_progress: Callable[[], None],
    ) -> None:
        self._job = job
        self._state = job.state
        self._aggregator = aggregator
        self._checkpoints = checkpoints
        self._read_progress = read_progress

    def release_workers(self) -> None:
        """Tells every worker to finish its step and leave."""
        self._state.enter(Phase.STOPPING)
        membership = self._state.membership
        membership.begin_stop(Role.WORKER)
        deadline = time.monotonic() + WIND_DOWN_SECS
        while membership.up(Role.WORKER) and time.monotonic() < deadline:
            if self._aggregator and not membership.await_gone(Role.WORKER, _TOKENLESS_SECS):
                # A worker that waits for a token could not see that it should stop.
                self._aggregator.release()
            membership.await_gone(Role.WORKER, _TICK_SECS)
            membership.expire()
        for record in membership.up(Role.WORKER):
            log.warning("%s did not leave within %g s", record.task, WIND_DOWN_SECS)

    def save(self) -> None:
        """Saves the model and writes the last figures, once no worker trains any more."""
        self._stop_steps()
        self._checkpoints.stop()
        self._checkpoints.save(quiet=True)
        self._job.summaries.write_progress(self._state.progress.snapshot, force=True)

    def save_after_failure(self) -> None:
        """Saves the model as trained until a task failed; a second error is only logged."""
        try:
            self._stop_steps()
            if math.isnan(self._state.progress.snapshot.loss or 0.0):
                log.warning("no checkpoint is saved: the loss is NaN")
                return
            self._checkpoints.stop()
            self._checkpoints.save(quiet=True)
        except (JobFailed, ServerLost, tf.errors.OpError) as error:
            log.warning("no checkpoint could be saved after the failure: %s", reason_of(error))

    def save_for_the_next_chief(self) -> None:
        """Saves the model, in case more than this process is lost before the next chief comes."""
        try:
            self._checkpoints.save(max_wait_secs=HAND_OVER_SHARE * self._job.tenure.grace_secs)
        except (JobFailed, tf.errors.OpError) as error:
            log.warning("the job is handed over without a checkpoint: %s", reason_of(error))

    def _stop_steps(self) -> None:
        if self._aggregator:
            self._aggregator.stop()
        self._read_progress()


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
        for record in membership.records()
        if record.state is TaskState.LOST and not record.is_told
    )
