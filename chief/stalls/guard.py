"""The chief's handling of stalls: it reports them, and applies the remedies."""

from __future__ import annotations

import logging
import time

from ...cluster.spec import Role
from ...errors import JobFailed
from ...protos import membership_pb2 as pb
from ..aggregation import Aggregator
from ..metrics import ChiefMetrics
from ..state import JobState
from .lost_tokens import NewSession
from .stalls import Remedy, StepObservation, Verdict, WorkerObservation

log = logging.getLogger(__name__)

# Seconds between two looks; a worker's report is as old as its last heartbeat anyway.
LOOK_SECS = 0.25
# Workers are looked at for a part of the time at most: one divided by this.
_WATCH_RATIO = 20.0


class Stalled(Exception):
    """No step is made, and no worker alone is at fault: every session is to be reopened."""


class StallGuard:
    """The link between the stall watch and the job: it passes observations, and applies remedies.

    Args:
        state: The job.
        metrics: Metrics for Prometheus.
        aggregator: The aggregator of sync mode.
        starved_secs: Seconds for which a worker may wait for input before it counts as waiting for
            others.
    """

    def __init__(
        self,
        state: JobState,
        metrics: ChiefMetrics,
        aggregator: Aggregator | None,
        starved_secs: float,
    ) -> None:
        self._state = state
        self._metrics = metrics
        self._aggregator = aggregator
        self._starved_secs = starved_secs
        self._looked = 0.0
        self._step: int | None = None
        self._watch_at = 0.0
        state.stall_watch.restart()

    def look(self, paused: bool) -> None:
        """Looks whether steps are made; to be called again and again while the job trains.

        Args:
            paused: Whether training is held, for a checkpoint or a restore point.

        Raises:
            JobFailed: It hangs again and again.
            Stalled: A new generation is to begin.
            tf.errors.OpError: A parameter server is gone.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_SECS:
            return
        self._looked = now
        step = self._state.progress.snapshot.global_step
        if step != self._step:
            self._step, self._state.stalls.stepped_at = step, now
        self._metrics.step_age_seconds.set(self._state.stalls.secs_since_step)
        self._supply_tokens()
        if not self._state.options.stall_secs or now < self._watch_at:
            return
        # An optimizer may leave updates out for as long as it wants: that is no stall.
        made = step if self._aggregator is None else self._aggregator.rounds
        verdict = self._state.stall_watch.look(
            made, self._sights(), paused=paused, gradients=self._ask_for_gradients
        )
        # A look at thousands of workers keeps others from answering them.
        pause_secs = _WATCH_RATIO * (time.monotonic() - now)
        self._watch_at = now + min(pause_secs, self._state.options.stall_secs / 4)
        self._tell(verdict)
        self._treat(verdict)

    def stop(self) -> None:
        """Stops watching."""
        self._state.stalls.stepped_at, self._state.stalls.diagnosis = None, ""
        self._metrics.step_age_seconds.set(0.0)

    def _supply_tokens(self) -> None:
        if self._aggregator is None:
            return
        waiting = {
            record.task.index: NewSession(record.incarnation, record.report.sessions, record.heard)
            for record in self._state.membership.up(Role.WORKER)
            if record.report.doing == pb.WorkerReport.TOKEN
        }
        self._aggregator.supply(waiting)

    def _sights(self) -> list[WorkerObservation]:
        membership = self._state.membership
        starved = self._state.ledger.starved(self._starved_secs)
        return [
            WorkerObservation(
                task=record.task,
                incarnation=record.incarnation,
                local_steps=record.report.local_steps,
                sessions=record.report.sessions,
                doing=record.report.doing,
                heard_secs=membership.heartbeat_age(record),
                starved=record.task in starved,
            )
            for record in membership.up(Role.WORKER)
        ]

    def _ask_for_gradients(self) -> StepObservation | None:
        return self._aggregator.sight() if self._aggregator is not None else None

    def _tell(self, verdict: Verdict) -> None:
        stalls = self._state.stalls
        if verdict.is_new:
            stalls.count += 1
            self._metrics.stalls.inc()
            log.warning("%s", verdict.diagnosis)
        elif stalls.diagnosis and not verdict.diagnosis:
            log.info("steps are made again")
        stalls.diagnosis = verdict.diagnosis

    def _treat(self, verdict: Verdict) -> None:
        membership = self._state.membership
        names = " and ".join(str(worker.task) for worker in verdict.workers)
        match verdict.remedy:
            case Remedy.REOPEN:
                log.warning("%s; %s: open a new session", verdict.diagnosis, names)
                for each in verdict.workers:
                    membership.leave_session(each.task, each.incarnation, each.sessions)
            case Remedy.LOSE:
                log.warning("%s; %s: lost", verdict.diagnosis, names)
                for each in verdict.workers:
                    membership.lose(each.incarnation, verdict.diagnosis, Role.WORKER)
            case Remedy.RENEW:
                raise Stalled(verdict.diagnosis)
            case Remedy.FAIL:
                for each in verdict.workers:  # Else the end would wait for them.
                    membership.leave_session(each.task, each.incarnation, each.sessions)
                raise JobFailed(f"{names or 'the job'} hung again and again: {verdict.diagnosis}")
            case Remedy.NONE:
                pass
