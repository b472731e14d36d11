"""Training over one set of parameter servers after the other, until one of them ends the job."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..cluster.deadline import Deadline
from ..cluster.leavable_session import LeavableSession
from ..cluster.logdir.interface import LogDirectory
from ..cluster.runtime import TensorFlowServer, session_config
from ..cluster.session import open_session
from ..cluster.spec import ClusterView, Role
from ..reasons import reason_of
from .draining import HandedOver
from .failures import LOST_ERRORS
from .lease_watch import LeaseWatch
from .metrics import ChiefMetrics
from .recovery import Restorer, find_lost
from .resize.layout import CHIEF, Layout
from .resize.relocation import Resized, drop_layout, move_model
from .resize.scaling import Resizing
from .stalls.guard import Stalled
from .state import JobState, Phase
from .summaries import SummaryService
from .training import Training

log = logging.getLogger(__name__)


class Generations:
    """The generations of a job: each ends when a server is lost, or another number is wanted.

    Args:
        state: The job.
        layout: The chief's graph for the number of parameter servers there is now.
        build_layout: Makes it for another number of them, and of layouts before it.
        server: The chief's TensorFlow server.
        storage: The log directory.
        summaries: Where events go.
        metrics: What Prometheus sees.
        interrupted: Whether the job is to end, or this process.
        on_view: Called with each new set of servers in the list of tasks.
    """

    def __init__(
        self,
        state: JobState,
        layout: Layout,
        build_layout: Callable[[int, int], Layout],
        server: TensorFlowServer,
        storage: LogDirectory,
        summaries: SummaryService,
        metrics: ChiefMetrics,
        interrupted: Callable[[], bool],
        on_view: Callable[[], None],
    ) -> None:
        self._state = state
        self._membership = state.membership
        self._options = state.options
        self._build_layout = build_layout
        self._server = server
        self._storage = storage
        self._summaries = summaries
        self._metrics = metrics
        self._interrupted = interrupted
        self._on_view = on_view
        self._take(layout)

    def train(self, *, is_attached: bool) -> str:
        """Trains until there is a reason to end, and returns it.

        Args:
            is_attached: Whether an earlier chief of this job has left tasks that train on.

        Raises:
            JobFailed, WaitTimeout, HandedOver: As `Training.run`.
        """
        generation = 1
        self._restorer.is_attached = is_attached
        if is_attached:
            log.info("the tasks of an earlier chief of this job are taken over")
            if self._options.sync:
                # Its tokens are out, and gradients of them half counted: workers begin anew.
                self._membership.renew_generation()
        self._state.restore_step = self._newest_restore_step
        while True:
            view = self._membership.await_view(
                generation, self._options.max_wait_secs, self._interrupted
            )
            self._state.raise_if_failed()
            if view is None and self._state.is_handing_over():
                raise HandedOver
            if view is None:
                return "stopped"
            self._on_view()
            self._state.traffic = self._layout.traffic
            try:
                return self._train_on(view)
            except Resized as resized:
                self._resize(view, resized)
            except LOST_ERRORS as error:
                log.warning("generation %d is lost: %s", view.generation, reason_of(error))
                self._restorer.keeps_whole = isinstance(error, Stalled)
                # A server that was lost would have been missed long before a stall was.
                self._recover(view, 0.0 if self._restorer.keeps_whole else self._options.lease_secs)
            generation = view.generation + 1

    def _take(self, layout: Layout) -> None:
        self._layout = layout
        self._restorer = Restorer(
            *(layout.built, self._storage, layout.mirrors, self._options.recovery),
            on_passed_over=self._note_checkpoint_trouble,
        )
        self._renew_resizing()

    def _renew_resizing(self) -> None:
        self._resizing = Resizing(
            *(self._state.plan, self._membership, self._layout, self._build_layout),
            self._options.heartbeat_secs,
        )

    def _train_on(self, view: ClusterView) -> str:
        # In async mode the chief makes no steps: it initializes, saves, and reads a few numbers.
        config = session_config(view, CHIEF, self._server.address, optimize=self._options.sync)
        deadline = Deadline.after(self._options.lease_secs)
        graph = self._layout.built.graph
        session = open_session(self._server.target, graph, config, deadline, LeavableSession)
        assert isinstance(session, LeavableSession)
        try:
            training = Training(
                self._state,
                self._layout,
                session,
                view,
                self._storage,
                self._restorer,
                self._resizing,
                self._summaries,
                self._metrics,
                self._interrupted,
            )
            with LeaseWatch(self._membership, view, session):
                return training.run()
        finally:
            session.close()

    def _resize(self, view: ClusterView, resized: Resized) -> None:
        """Moves the model; if that fails, the old layout still has it."""
        try:
            move_model(self._server, view, resized, self._options.lease_secs)
        except LOST_ERRORS as error:
            log.warning("the model could not be moved, and stays: %s", reason_of(error))
            self._restorer.found = resized.point
            self._recover(view, self._options.lease_secs)
            self._renew_resizing()
            return
        self._membership.resize(resized.servers)
        drop_layout(view, self._layout.number)
        self._take(resized.layout)
        self._restorer.found = resized.point

    def _newest_restore_step(self) -> int:
        point, checkpoint = self._restorer.point, self._state.checkpoint
        return max(point.global_step if point else 0, checkpoint.global_step if checkpoint else 0)

    def _recover(self, view: ClusterView, look_secs: float) -> None:
        """Finds out which parameter server is gone, and has everyone let go of the others."""
        if self._state.lost_at is None:
            self._state.lost_at = time.monotonic()
        self._state.phase = Phase.RECOVERING
        self._metrics.recoveries.inc()
        if self._membership.has_ended(Role.WORKER) and not self._interrupted():
            self._call_workers_back(view)
        find_lost(self._membership, view, look_secs, self._interrupted)
        # What a worker still adds to the old model must not end up in the one that is restored.
        for task in self._membership.await_no_sessions(self._options.lease_secs):
            log.warning("%s has not given up its step over generation %d", task, view.generation)

    def _call_workers_back(self, view: ClusterView) -> None:
        """The model was lost after training had ended, and before it was saved."""
        self._membership.mark_unready(view.generation)
        self._membership.await_gone(Role.WORKER, self._options.lease_secs)
        self._membership.reopen()

    def _note_checkpoint_trouble(self, trouble: str) -> None:
        self._state.checkpoint_trouble = trouble
