"""One generation of a job on the chief: from the initialized model to the end of training."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from ..cluster.session import BoundedCloseSession
from ..cluster.spec import ClusterView, Role
from ..data_plane.sync.tokens import SyncCounters
from ..errors import JobFailed, WaitTimeout
from ..reasons import reason_of
from .aggregation import Aggregator
from .changes import Looks
from .checkpoints.checkpoints import PAUSE_SECS, CheckpointService, SaveSchedule
from .checkpoints.files import Checkpoint
from .checkpoints.mirrors import MirrorService, RestorePoint
from .draining import Draining
from .ending import Ending
from .input.watch import ShardWatch
from .membership.tasks import TaskState
from .outcomes import LOST_ERRORS, EndReason, Finished, Handover, Outcome, ServerLost
from .recovery import Held, Premise, Restored, Restorer
from .resize.relocation import Layout, Resized
from .resize.scaling import Resizing
from .stalls.guard import StallGuard
from .state import JobContext, Phase

log = logging.getLogger(__name__)

TICK_SECS = 0.1
# While the first step after a recovery is awaited.
LOOK_SECS = 0.02
READ_SECS = 0.25
# Sync mode: a worker that waits for input for so long computes no gradients for now.
STARVED_SECS = 0.5
READ_TIMEOUT_MS = 10_000
NOTHING: frozenset[int] = frozenset()
# How long a recovery waits for a checkpoint or restore point of the model that was lost.
LAST_SAVE_SECS = 0.5


class Training:
    """The chief's work with the parameter servers of one view.

    Args:
        job: The job.
        layout: The chief's graph, with the state around it.
        session: The chief's session over `view`.
        view: The parameter servers.
        restorer: Restores the model.
        resizing: Prepares another number of parameter servers.
    """

    def __init__(
        self,
        job: JobContext,
        layout: Layout,
        session: BoundedCloseSession,
        view: ClusterView,
        restorer: Restorer,
        resizing: Resizing,
    ) -> None:
        self._tenure = job.tenure
        self._state = state = job.state
        self._built = built = layout.built
        self._session = session
        self._view = view
        self._restorer = restorer
        self._resizing = resizing
        self._summaries = job.summaries
        self._metrics = job.metrics
        self._aggregator = (
            Aggregator(built.sync, session, state.options.lease_secs) if built.sync else None
        )
        self._stalls = StallGuard(state, job.metrics, self._aggregator, STARVED_SECS)
        self._shards = ShardWatch(state.ledger, state.membership, built, session)
        self._began = time.monotonic()
        self._read_at = 0.0
        self._workerless_since = time.monotonic()
        self._gradients = SyncCounters()
        options, snapshot = state.options, self._shards.snapshot
        self._is_lost = threading.Event()
        # Workers whose step fails do not end it before they have another session.
        self._held: Callable[[float], AbstractContextManager[Any]] = functools.partial(
            (self._aggregator or state.holds).paused, given_up=self._is_lost.is_set
        )
        # Without leased input, the input behind a saved model is not known.
        paused = self._held if self._aggregator or built.input is not None else _not_paused
        self._mirrors = (
            MirrorService(layout.mirrors, session, options.mirror_secs or 0.0, paused, snapshot)
            if layout.mirrors is not None
            else None
        )
        self._checkpoints = CheckpointService(
            built,
            session,
            job.storage,
            SaveSchedule(
                lambda: state.progress.snapshot.global_step,
                every_secs=built.loop.services.save_checkpoint_secs or None,
                every_steps=options.save_checkpoint_steps,
                max_wait_secs=options.max_wait_secs,
            ),
            paused=paused,
            sidecar=lambda: {"input": snapshot()},
            on_saved=self._note_checkpoint,
            on_failed=self._note_failed_checkpoint,
        )
        self._ending = Ending(job, self._aggregator, self._checkpoints, self._read_progress)
        self._draining = Draining(
            state,
            self._checkpoints,
            self._mirrors,
            paused if paused is not _not_paused else None,
            awaits_replacement=job.tenure.is_supervised and not options.ps_on_workers,
        )

    def run(self, premise: Premise) -> Outcome:
        """Trains until this generation ends, winds down and returns the outcome.

        Args:
            premise: What the parameter servers hold already.

        Raises:
            JobFailed: A task failed, or the job was stopped as failed.
            WaitTimeout: No worker was there for too long.
            ServerLost, Stalled, tf.errors.OpError: The generation is lost, see `LOST_ERRORS`.
        """
        self._state.enter(Phase.INITIALIZING)
        restored = self._restorer.restore(self._session, self._view, premise)
        self._restore_input(restored)
        self._read_progress()
        self._note_restored(restored)
        if self._aggregator:
            self._began = time.monotonic()
            records = self._state.membership.records(Role.WORKER)
            self._aggregator.start(len(records), self._token_holders())
        self._checkpoints.start(self._state.checkpoint)
        if self._mirrors is not None:
            self._mirrors.start()
        self._state.save_checkpoint = self._checkpoints.save
        self._state.enter(Phase.TRAINING)
        last_step = self._state.last_step
        end = "the input ends" if last_step is None else f"global step {last_step}"
        log.info("training until %s", end)
        self._state.membership.mark_ready(self._view.generation)
        try:
            return self._train_to_the_end()
        except LOST_ERRORS:
            self._is_lost.set()
            raise
        finally:
            self._stop_services()

    def _restore_input(self, restored: Restored) -> None:
        source = restored.source
        saved = source.extra if isinstance(source, RestorePoint) else None
        if isinstance(source, Checkpoint):
            saved = (source.sidecar or {}).get("input")
        if restored.kept is Held.OWN:
            saved = self._shards.snapshot()
        # Workers that train on without a chief report their leases within a lease.
        is_adopted = restored.kept is Held.EARLIER_CHIEFS
        adopt_secs = self._state.options.lease_secs if is_adopted else 0.0
        self._shards.restore(saved, adopt_secs=adopt_secs)

    # -- while training

    def _train_to_the_end(self) -> Outcome:
        try:
            end = self._supervise()
        except (JobFailed, WaitTimeout):
            self._release_workers()
            self._ending.save_after_failure()
            raise
        if isinstance(end, Resized):
            return end
        if end is EndReason.STOPPED and self._tenure.is_handing_over():
            self._ending.save_for_the_next_chief()
            return Handover()
        self._release_workers()
        self._ending.save()
        return Finished(end)

    def _supervise(self) -> EndReason | Resized:
        membership, interruptions = self._state.membership, self._state.interruptions
        restored_step = self._state.progress.snapshot.global_step
        looks = Looks(membership.changed)
        while (reason := self._reason_to_end()) is None:
            looks.wait(LOOK_SECS if interruptions.is_awaiting_step else TICK_SECS)
            if self._aggregator:
                self._aggregator.set_workers(self._token_holders())
                self._aggregator.watch()
            self._shards.look()
            if membership.view != self._view:
                raise ServerLost(membership.missing())
            if self._aggregator:
                self._aggregator.check()
            if self._draining.is_due():
                interruptions.begin_recovery()
                self._state.enter(Phase.RECOVERING)
                raise ServerLost(self._draining.drain(self._read_progress))
            if self._resizing.look(self._view) and (resized := self._make_way()) is not None:
                return resized
            is_looking = membership.is_suspected or interruptions.is_awaiting_step
            if is_looking or time.monotonic() - self._read_at >= READ_SECS:
                self._read_progress()
                membership.cleared()
                self._show_tasks()
                self._note_first_step(restored_step)
                self._summaries.write_progress(self._state.progress.snapshot)
            self._stalls.look(self._is_paused)
        return reason

    @property
    def _is_paused(self) -> bool:
        aggregator = self._aggregator
        return self._state.holds.is_held or (aggregator is not None and aggregator.is_held)

    def _note_first_step(self, restored_step: int) -> None:
        """Ends a recovery, or a move, once the model has made a step."""
        if self._state.progress.snapshot.global_step <= restored_step:
            return
        interruptions = self._state.interruptions
        if interruptions.end_move():
            took = interruptions.resize_secs
            self._metrics.resize_seconds.observe(took)
            log.info("training continues %.2f s after the move began", took)
        if interruptions.end_recovery(restored_step):
            took = interruptions.recovery_secs
            self._metrics.recovery_seconds.observe(took)
            log.info("training continues %.2f s after the loss, from step %d", took, restored_step)

    def _make_way(self) -> Resized | None:
        """Stops all workers between two steps, for a move, and takes back their sessions.

        Returns:
            The move to make; None if it is not possible now.
        """
        membership = self._state.membership
        try:
            ready = self._resizing.take()
        except Exception as error:  # Whatever a model does: the job that runs is not to end by it.
            log.error("the number of parameter servers does not change: %s", reason_of(error))
            self._resizing.give_up()
            return None
        if ready is None:
            return None
        began = time.monotonic()
        self._stop_services(but_aggregator=True)
        with self._held(PAUSE_SECS):
            self._state.enter(Phase.SCALING)
            self._state.interruptions.begin_move(began)
            noted = self._shards.snapshot()
            membership.mark_unready()
            # Held until they have: a step that began now would be lost.
            for task in membership.await_no_sessions(self._state.options.lease_secs):
                log.warning("%s has not given up its step for the move", task)
            step = int(self._session.run(self._built.global_step))
        servers, layout, move = ready
        return Resized(servers, layout, move, RestorePoint(-1, step, NOTHING, NOTHING, noted))

    def _reason_to_end(self) -> EndReason | None:
        state = self._state
        state.raise_if_failed()
        if self._tenure.is_interrupted():
            return EndReason.STOPPED
        if self._is_at_last_step():
            return EndReason.MAX_STEPS
        reason = self._out_of_workers()
        if reason is not None:
            # The last one may have left because of a step that was not seen here yet.
            self._read_progress()
        return EndReason.MAX_STEPS if reason and self._is_at_last_step() else reason

    def _is_at_last_step(self) -> bool:
        last_step = self._state.last_step
        return last_step is not None and self._state.progress.snapshot.global_step >= last_step

    def _out_of_workers(self) -> EndReason | None:
        membership, options = self._state.membership, self._state.options
        workers = membership.records(Role.WORKER)
        if any(record.state is TaskState.UP for record in workers):
            self._workerless_since = time.monotonic()
            return None
        ended = any(record.state is TaskState.END_OF_INPUT for record in workers)
        if ended and len(workers) >= options.trainers and self._shards.is_exhausted:
            return EndReason.END_OF_INPUT
        waited = time.monotonic() - self._workerless_since
        if waited > options.max_wait_secs:
            last = (
                ", ".join(f"{r.task} {r.state} {r.error}".strip() for r in workers) or "none came"
            )
            raise WaitTimeout(
                f"max_wait_secs={options.max_wait_secs:g} ran out without any worker: {last}"
            )
        return None

    def _show_tasks(self) -> None:
        membership = self._state.membership
        counts = {str(role): len(membership.up(role)) for role in (Role.PS, Role.WORKER)}
        counts["spare"] = len(membership.alive(Role.PS)) - counts[Role.PS]
        self._metrics.show_tasks(counts, membership.generation)
        self._metrics.show_preemptions(membership.preemptions)

    def _token_holders(self) -> dict[int, str]:
        """Returns the workers that are up; at the start also planned ones that never came.

        They have a lease to join in: steps then take gradients of all from the first one on.
        """
        membership, options = self._state.membership, self._state.options
        starved = self._state.ledger.starved(STARVED_SECS)
        holders = {
            r.task.index: r.incarnation
            for r in membership.up(Role.WORKER)
            if r.task not in starved  # No step should wait for a starved worker.
        }
        if time.monotonic() - self._began < options.lease_secs:
            known = {record.task.index for record in membership.records(Role.WORKER)}
            holders |= dict.fromkeys(set(range(options.trainers)) - known, "")
        return holders

    def _read_progress(self) -> None:
        timeout = tf.compat.v1.RunOptions(timeout_in_ms=READ_TIMEOUT_MS)
        try:
            step, examples = self._session.run(
                [self._built.global_step, self._built.examples], options=timeout
            )
        except tf.errors.DeadlineExceededError as error:
            raise ServerLost(f"no answer within {READ_TIMEOUT_MS / 1000:g} s") from error
        self._read_at = time.monotonic()
        self._count_gradients()
        membership = self._state.membership
        # At the end no worker is up, and the last reports are the newest ones.
        workers = membership.up(Role.WORKER) or membership.records(Role.WORKER)
        reports = [record.report for record in workers]
        snapshot = self._state.progress.update(self._read_at, int(step), int(examples), reports)
        self._metrics.show_progress(snapshot)
        self._metrics.restore_step.set(self._state.restore_step())
        self._metrics.records_set_aside.set(self._shards.records_set_aside)

    def _count_gradients(self) -> None:
        if self._aggregator is not None and self._aggregator.is_running:
            counted = self._aggregator.counters()
            more = counted.since(self._gradients)
            self._gradients = counted
            self._state.gradients += more
            self._metrics.count_gradients(more)

    # -- at the end

    def _release_workers(self) -> None:
        self._stalls.stop()
        self._ending.release_workers()

    def _stop_services(self, but_aggregator: bool = False) -> None:
        self._state.save_checkpoint = None
        self._stalls.stop()
        if self._aggregator and not but_aggregator:
            self._aggregator.stop()
        if self._mirrors is not None:
            self._mirrors.stop(LAST_SAVE_SECS if self._is_lost.is_set() else PAUSE_SECS)
        self._checkpoints.stop(max_wait_secs=LAST_SAVE_SECS)

    def _note_restored(self, restored: Restored) -> None:
        step = self._state.progress.snapshot.global_step
        self._summaries.start_session(step)
        self._metrics.show_parameters(self._built.loads, self._state.traffic)
        self._state.loads = self._built.loads
        if isinstance(restored.source, Checkpoint):
            self._state.checkpoint = restored.source
            self._metrics.show_checkpoint(restored.source)

    def _note_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._state.checkpoint = checkpoint
        self._state.checkpoint_trouble = ""
        self._metrics.show_saved(checkpoint)

    def _note_failed_checkpoint(self, error: JobFailed) -> None:
        self._state.checkpoint_trouble = str(error)
        self._metrics.checkpoint_failures.inc()


def _not_paused(timeout_secs: float) -> AbstractContextManager[Any]:
    """Holds nothing: workers of an async job apply their updates by themselves."""
    return nullcontext()
