"""Training over one set of parameter servers after the other, until one of them ends the job."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..cluster.deadline import Deadline
from ..cluster.leavable_session import LeavableSession
from ..cluster.opening import open_session
from ..cluster.runtime import TensorFlowServer, session_config
from ..cluster.spec import ClusterView, Role
from ..reasons import reason_of
from .lease_watch import LeaseWatch
from .outcomes import LOST_ERRORS, EndReason, Finished, Handover, Lost, Outcome
from .recovery import NO_PREMISE, Held, Premise, Restorer, find_lost
from .resize.relocation import CHIEF, Layout, Resized, drop_layout, move_model
from .resize.scaling import Resizing
from .state import JobContext, Phase
from .training import Training

log = logging.getLogger(__name__)


class Generations:
    """The generations of a job: each ends when a server is lost, or another number is wanted.

    Args:
        job: The job.
        layout: The chief's graph for the number of parameter servers there is now.
        build_layout: Makes it for another number of them, and of layouts before it.
        server: The chief's TensorFlow server.
        on_view: Called with each new set of servers in the list of tasks.
    """

    def __init__(
        self,
        job: JobContext,
        layout: Layout,
        build_layout: Callable[[int, int], Layout],
        server: TensorFlowServer,
        on_view: Callable[[], None],
    ) -> None:
        self._job = job
        self._state = job.state
        self._membership = job.state.membership
        self._options = job.state.options
        self._build_layout = build_layout
        self._server = server
        self._on_view = on_view
        self._take(layout)

    def train(self, *, is_attached: bool) -> Finished | Handover:
        """Trains over one generation after the other, and returns how the last one ended.

        Args:
            is_attached: Whether an earlier chief of this job has left tasks that train on.

        Raises:
            JobFailed, WaitTimeout: As `Training.run`.
        """
        generation, premise = 1, NO_PREMISE
        if is_attached:
            premise = Premise(Held.EARLIER_CHIEFS)
            log.info("the tasks of an earlier chief of this job are taken over")
            if self._options.sync:
                # Its tokens are out, and gradients of them half counted: workers start again.
                self._membership.renew_generation()
        self._state.restore_step = self._newest_restore_step
        while (view := self._await_view(generation)) is not None:
            outcome = self._train_on(view, premise)
            match outcome:
                case Finished() | Handover():
                    return outcome
                case Resized():
                    self._resize(view, outcome)
                    premise = Premise(Held.MOVED, outcome.point)
                case Lost():
                    self._recover(view, outcome)
                    premise = _premise_after(outcome, premise)
            generation = view.generation + 1
        if self._job.tenure.is_handing_over():
            return Handover()
        return Finished(EndReason.STOPPED)

    def _take(self, layout: Layout) -> None:
        self._layout = layout
        self._restorer = Restorer(
            *(layout.built, self._job.storage, layout.mirrors, self._options.recovery),
            on_passed_over=self._note_checkpoint_trouble,
        )
        self._renew_resizing()

    def _renew_resizing(self) -> None:
        self._resizing = Resizing(
            *(self._state.plan, self._membership, self._layout, self._build_layout),
            self._options.heartbeat_secs,
        )

    def _await_view(self, generation: int) -> ClusterView | None:
        """Returns the parameter servers of the next generation; None if this process is to end."""
        view = self._membership.await_view(
            generation, self._options.max_wait_secs, self._job.tenure.is_interrupted
        )
        self._state.raise_if_failed()
        if view is not None:
            self._on_view()
            self._state.traffic = self._layout.traffic
        return view

    def _train_on(self, view: ClusterView, premise: Premise) -> Outcome:
        try:
            session = self._open_session(view)
        except LOST_ERRORS as error:
            return Lost.of(error, is_begun=False)
        try:
            training = Training(
                self._job, self._layout, session, view, self._restorer, self._resizing
            )
            with LeaseWatch(self._membership, view, session):
                return training.run(premise)
        except LOST_ERRORS as error:
            return Lost.of(error)
        finally:
            session.close()

    def _open_session(self, view: ClusterView) -> LeavableSession:
        # In async mode the chief makes no steps: it initializes, saves, and reads a few numbers.
        config = session_config(view, CHIEF, self._server.address, optimize=self._options.sync)
        deadline = Deadline.after(self._options.lease_secs)
        graph = self._layout.built.graph
        session = open_session(
            *(self._server.target, graph, config, deadline, LeavableSession),
            # A server may be lost, and replaced, while the chief waits for it.
            is_needed=lambda: self._membership.view == view,
        )
        assert isinstance(session, LeavableSession)
        return session

    def _resize(self, view: ClusterView, resized: Resized) -> None:
        """Moves the model; if that fails, the old layout still has it."""
        try:
            move_model(self._server, view, resized, self._options.lease_secs)
        except LOST_ERRORS as error:
            log.warning("the model could not be moved, and keeps its layout: %s", reason_of(error))
            self._look_for_lost(view, self._options.lease_secs)
            self._renew_resizing()
            return
        self._membership.resize(resized.servers)
        drop_layout(view, self._layout.number)
        self._take(resized.layout)

    def _newest_restore_step(self) -> int:
        point, checkpoint = self._restorer.point, self._state.checkpoint
        return max(point.global_step if point else 0, checkpoint.global_step if checkpoint else 0)

    def _recover(self, view: ClusterView, lost: Lost) -> None:
        log.warning("generation %d is lost: %s", view.generation, lost.reason)
        # A server that was lost would have been missed long before a stall was.
        self._look_for_lost(view, 0.0 if lost.is_stall else self._options.lease_secs)

    def _look_for_lost(self, view: ClusterView, look_secs: float) -> None:
        """Finds out which parameter server is gone, and takes back all sessions over the others."""
        self._state.interruptions.begin_recovery()
        self._state.enter(Phase.RECOVERING)
        self._job.metrics.recoveries.inc()
        is_interrupted = self._job.tenure.is_interrupted
        if self._membership.has_ended(Role.WORKER) and not is_interrupted():
            self._call_workers_back(view)
        find_lost(self._membership, view, look_secs, is_interrupted)
        # A worker's last update of the old model must not end up in the restored one.
        for task in self._membership.await_no_sessions(self._options.lease_secs):
            log.warning("%s has not given up its step over generation %d", task, view.generation)

    def _call_workers_back(self, view: ClusterView) -> None:
        """Calls workers back, after a loss of the trained model before it was saved."""
        self._membership.mark_unready(view.generation)
        self._membership.await_gone(Role.WORKER, self._options.lease_secs)
        self._membership.reopen()

    def _note_checkpoint_trouble(self, trouble: str) -> None:
        self._state.checkpoint_trouble = trouble


def _premise_after(lost: Lost, premise: Premise) -> Premise:
    """Returns the servers' expected contents after a loss, given those before it."""
    if lost.is_stall:
        return Premise(Held.OWN)
    is_untouched = not lost.is_begun and premise.held is not Held.OWN
    return premise if is_untouched else NO_PREMISE
