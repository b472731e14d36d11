"""Detects stalls, the tasks that others wait for, and the remedy.

Pure bookkeeping: no network, no TensorFlow, and the clock is a parameter.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...cluster.spec import Task
from ...protos import membership_pb2 as pb
from .clocks import FIRST_FACTOR, ProgressClock, WorkerProgress
from .diagnosis import StepObservation, WorkerObservation, describe

__all__ = ["Remedy", "StallWatch", "StepObservation", "Verdict", "WorkerObservation"]

# A remedy is applied after so many times the seconds after which a stall is reported.
REMEDY_FACTOR = 2.0
MAX_STALLS = 3
_DOING = pb.WorkerReport
# A worker with one of these activities waits for another task.
_WAITING = (_DOING.TOKEN, _DOING.SLOWER)
# A session that is not open yet cannot be abandoned.
_WITHOUT_SESSION = (_DOING.UNKNOWN, _DOING.OPENING)


class Remedy(enum.StrEnum):
    """The remedy for a stall.

    ::

        NONE -> REOPEN (or RENEW, if it is all of them) -> LOSE -> FAIL
    """

    NONE = "none"
    REOPEN = "reopen"  # The workers reopen their sessions.
    RENEW = "renew"  # All workers do: a new generation begins.
    LOSE = "lose"  # The workers are declared lost.
    FAIL = "fail"  # The job ends.


@dataclass(frozen=True)
class Verdict:
    """The result of one look.

    Attributes:
        diagnosis: The tasks without a step and those that wait for them; empty: there is no stall.
        is_new: True at the first look with this stall.
        remedy: The remedy to apply now.
        workers: The workers to apply it to.
    """

    diagnosis: str = ""
    is_new: bool = False
    remedy: Remedy = Remedy.NONE
    workers: tuple[WorkerObservation, ...] = ()


class StallWatch:
    """A watch over the steps of a job and of each of its workers.

    A worker hangs when it does not wait for others, and makes no step for too long. That is
    `stall_secs`, or three times as long as its steps take. It has more time for its first steps,
    and between steps. The job hangs when there is no global step for so long; if all workers wait,
    none is at fault.

    A stall is reported at once. If it lasts twice as long, its workers reopen their sessions. A
    worker that hangs again in the same life is declared lost. A worker that hangs for the third
    time without a step in between fails the job, if the job cannot continue without it.

    Example::

        watch = StallWatch(60.0, sync=True)
        verdict = watch.look(steps, sights, paused=False, gradients=ask_the_server)

    Args:
        stall_secs: Seconds without a step after which a stall is reported.
        sync: True if gradients are aggregated: then all wait for each.
        clock: Seconds from any origin.
    """

    def __init__(
        self, stall_secs: float, *, sync: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stall_secs = stall_secs
        self._sync = sync
        self._clock = clock
        self._job = ProgressClock(clock())
        self._lives: dict[tuple[Task, str], WorkerProgress] = {}
        self._strikes: dict[Task, int] = {}
        self._struck_at: dict[Task, int | None] = {}
        self._job_strikes = 0
        self._is_stalled = False

    def restart(self) -> None:
        """Restarts the wait: for a new generation, or after training was held."""
        now = self._clock()
        self._job.restart(now)
        self._job.is_first = True
        for life in self._lives.values():
            life.restart(now)

    def look(
        self,
        made: int,
        workers: Sequence[WorkerObservation],
        *,
        paused: bool,
        gradients: Callable[[], StepObservation | None],
    ) -> Verdict:
        """Takes in the progress of the job and its workers.

        Args:
            made: Steps made together: global steps, or in sync mode means of gradients.
            workers: The workers that are up.
            paused: True if training is held, for a checkpoint or a restore point.
            gradients: Sync mode: asks for the present gradients of the step under way; called only
                when something may hang. Returns None in async mode.
        """
        now = self._clock()
        if self._job.note(now, made):
            self._job_strikes = 0
        lives = self._take(now, workers)
        for worker, life in lives.items():
            if paused or worker.doing in _WAITING or worker.starved:
                life.restart(now)
        if paused:
            self._job.restart(now)
        late = [worker for worker, life in lives.items() if self._is_late(life, now)]
        is_job_late = bool(workers) and self._job.age(now) >= self._patience_of_job
        if not late and not is_job_late:
            self._is_stalled = False
            return Verdict()
        return self._judge(now, lives, late, is_job_late, gradients())

    # -- inner workings

    def _take(
        self, now: float, workers: Sequence[WorkerObservation]
    ) -> dict[WorkerObservation, WorkerProgress]:
        known = {}
        for worker in workers:
            key = worker.task, worker.incarnation
            life = self._lives.get(key) or WorkerProgress(now)
            known[key] = life
            if life.note(now, worker):
                self._strikes.pop(worker.task, None)
        self._lives = known
        return {worker: known[worker.task, worker.incarnation] for worker in workers}

    def _judge(
        self,
        now: float,
        lives: Mapping[WorkerObservation, WorkerProgress],
        late: Sequence[WorkerObservation],
        is_job_late: bool,
        gradients: StepObservation | None,
    ) -> Verdict:
        given = gradients.given if gradients is not None else frozenset()
        waiting = [w for w in lives if w.doing in _WAITING or w.starved or w.task.index in given]
        for worker in waiting:  # The fault of the late workers says nothing about these.
            lives[worker].restart(now)
        culprits = [worker for worker in late if worker not in waiting]
        if not culprits and not is_job_late:
            return Verdict()
        suspects = [worker for worker in lives if worker not in waiting]
        diagnosis = describe(
            self._job.age(now) if is_job_late else None,
            {worker: lives[worker].age(now) for worker in culprits or suspects},
            waiting,
            gradients,
        )
        is_new, self._is_stalled = not self._is_stalled, True
        due = [w for w in culprits if lives[w].age(now) >= REMEDY_FACTOR * self._patience(lives[w])]
        remedy, whom = Remedy.NONE, due
        if due:
            remedy, whom = self._treat(now, due, lives)
        elif not suspects and self._job.age(now) >= REMEDY_FACTOR * self._patience_of_job:
            remedy = self._treat_job(now)
        return Verdict(diagnosis, is_new, remedy, tuple(whom))

    def _treat(
        self,
        now: float,
        due: list[WorkerObservation],
        lives: Mapping[WorkerObservation, WorkerProgress],
    ) -> tuple[Remedy, list[WorkerObservation]]:
        """Chooses the strongest remedy that one of them needs, for those that need it."""
        remedies = {worker: self._strike(worker, lives[worker]) for worker in due}
        order = (Remedy.FAIL, Remedy.LOSE, Remedy.REOPEN)
        worst = next(remedy for remedy in order if remedy in remedies.values())
        whom = [worker for worker, remedy in remedies.items() if remedy is worst]
        for worker in whom:
            lives[worker].restart(now)
            lives[worker].was_reopened = True
        if worst is Remedy.REOPEN and len(whom) == len(lives) > 1:
            # Not all workers hang by themselves at the same time: they share a cause.
            worst = Remedy.RENEW
        return worst, whom

    def _strike(self, worker: WorkerObservation, life: WorkerProgress) -> Remedy:
        task = worker.task
        strikes = self._strikes[task] = self._strikes.get(task, 0) + 1
        if strikes == 1:
            self._struck_at[task] = self._job.count
        if strikes >= MAX_STALLS and (self._sync or self._job.count == self._struck_at[task]):
            return Remedy.FAIL
        can_leave = worker.doing not in _WITHOUT_SESSION
        return Remedy.REOPEN if can_leave and not life.was_reopened else Remedy.LOSE

    def _treat_job(self, now: float) -> Remedy:
        self._job_strikes += 1
        self._job.restart(now)
        return Remedy.FAIL if self._job_strikes >= MAX_STALLS else Remedy.RENEW

    def _is_late(self, life: WorkerProgress, now: float) -> bool:
        return life.age(now) >= self._patience(life)

    def _patience(self, life: WorkerProgress) -> float:
        return life.patience(self._stall_secs)

    @property
    def _patience_of_job(self) -> float:
        # The first step of all workers together; each has its own patience besides.
        factor = FIRST_FACTOR if self._job.is_first else 1.0
        return max(factor * self._stall_secs, self._job.usual_secs)
