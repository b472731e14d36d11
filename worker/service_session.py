"""Sessions of a worker in the service: made for the view that the chief hands out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..cluster.chief_client import JobStopping, MembershipClient
from ..cluster.deadline import Deadline, growing_pauses
from ..cluster.leavable_session import LeavableSession
from ..cluster.opening import open_session
from ..cluster.runtime import TensorFlowServer, session_config
from ..cluster.session import PREEMPTION_ERRORS
from ..cluster.spec import ClusterView
from ..data_plane.options import DataPlane
from ..data_plane.prepare import prepare
from ..errors import WaitTimeout
from ..model.graph import TrainGraph
from ..reasons import reason_of
from .activity import Activity

log = logging.getLogger(__name__)

# A view may name a server that died a moment ago; then the chief is asked again, soon at first.
FIRST_ATTEMPT_SECS = 2.0
LAST_ATTEMPT_SECS = 15.0


class LayoutChanged(Exception):
    """The model is spread over another number of parameter servers than the graph was built for.

    Attributes:
        num_ps: Parameter servers now.
        layout: Counts the changes of that number.
    """

    def __init__(self, view: ClusterView) -> None:
        super().__init__(f"the model lies on {len(view.ps)} parameter servers now")
        self.num_ps = len(view.ps)
        self.layout = view.layout


class ServiceSessionCreator(tf.compat.v1.train.SessionCreator):
    """Session creator that waits for the model, then opens a session over its parameter servers.

    A `MonitoredSession` asks it again whenever a session broke.

    Args:
        client: A registered client.
        built: The worker's graph.
        server: This process's TensorFlow server.
        max_wait_secs: Seconds to wait for the model to be ready.
        data_plane: How tensors cross between tasks.
        cancelled: Returns whether this worker has to stop.
        activity: The record of the worker's activity.
    """

    def __init__(
        self,
        client: MembershipClient,
        built: TrainGraph,
        server: TensorFlowServer,
        max_wait_secs: float,
        data_plane: DataPlane,
        cancelled: Callable[[], bool],
        activity: Activity,
    ) -> None:
        self._client = client
        self._built = built
        self._server = server
        self._max_wait_secs = max_wait_secs
        self._data_plane = data_plane
        self._cancelled = cancelled
        self._activity = activity
        self._session: LeavableSession | None = None
        self._generation = 0
        self._over = 0
        self._lock = threading.Lock()

    def notice(self, generation: int) -> None:
        """Makes a step over the parameter servers of a generation fail, even if it waits.

        May be called from any thread.

        Args:
            generation: The newest generation that is over.
        """
        with self._lock:
            self._over = max(self._over, generation)
            session = self._session
        if session is not None and self._generation <= generation and not session.is_left:
            session.leave(f"generation {self._generation} is over")

    @property
    def is_left(self) -> bool:
        """True if no step can begin any more in the newest session."""
        session = self._session
        return session is not None and session.is_left

    def leave(self, reason: str) -> None:
        """Makes the current step fail and the session be opened again; from any thread.

        Args:
            reason: Why, for people.
        """
        with self._lock:
            session = self._session
        if session is not None:
            session.leave(reason)

    def create_session(self) -> Any:
        """Opens a session.

        Raises:
            WaitTimeout: The model was not ready in time.
            JobStopping: The job is ending.
            LayoutChanged: The graph is of a layout that is over.
        """
        if not self._built.graph.finalized:  # Not earlier: hooks may add to it when they begin.
            with self._built.container():
                prepare(self._built.graph, self._data_plane, self._built.steps)
            self._built.graph.finalize()
        self._activity.open_session()
        deadline = Deadline.after(self._max_wait_secs)
        attempt_secs = FIRST_ATTEMPT_SECS
        lost_generation, before, self._session = self._generation, self._session, None
        step = before.newest_run if before is not None else None
        for pause in growing_pauses():
            wait_secs = max(deadline.remaining_secs(), pause)
            view = self._await(
                max(1, lost_generation), lost_generation, wait_secs, before_ready=True
            )
            if view.layout != self._built.layout:
                raise LayoutChanged(view)
            session = self._open(view, step, Deadline.after(attempt_secs))
            attempt_secs = min(2 * attempt_secs, LAST_ATTEMPT_SECS)
            if session is not None and self._begin(session, view, lost_generation, wait_secs):
                return session
            lost_generation = view.generation
            if not deadline.remaining_secs():
                raise WaitTimeout(
                    f"max_wait_secs={self._max_wait_secs:g} ran out: no session over generation "
                    f"{view.generation} ({', '.join(member.address for member in view.ps)})"
                )
            deadline.sleep(pause)
        raise AssertionError("the pauses never end")

    def _await(
        self,
        min_generation: int,
        lost_generation: int,
        max_wait_secs: float,
        *,
        before_ready: bool = False,
    ) -> ClusterView:
        return self._client.await_ready(
            min_generation=min_generation,
            max_wait_secs=max_wait_secs,
            lost_generation=lost_generation,
            before_ready=before_ready,
            cancelled=self._cancelled,
        )

    def _open(self, view: ClusterView, step: Any, deadline: Deadline) -> LeavableSession | None:
        """Opens a session over a view, while the chief makes the model ready there.

        Args:
            view: The parameter servers.
            step: The fetches of a step, which is prepared; None if no step was made yet.
            deadline: How long to wait for the servers.

        Returns:
            The session; None if a server is gone.
        """
        config = session_config(view, self._client.registration.task, self._server.address)
        try:
            session = open_session(
                self._server.target, self._built.graph, config, deadline, LeavableSession
            )
        except (*PREEMPTION_ERRORS, tf.errors.DeadlineExceededError) as error:
            self._note_failed(view, error)
            return None
        assert isinstance(session, LeavableSession)
        with self._lock:
            self._generation, self._session = view.generation, session
            if view.generation <= self._over:
                session.leave(f"generation {view.generation} is over")
        try:
            if step is not None:
                session.register_run(step)
            return session
        except PREEMPTION_ERRORS as error:
            session.close()
            self._note_failed(view, error)
            return None

    def _begin(
        self,
        session: LeavableSession,
        view: ClusterView,
        lost_generation: int,
        max_wait_secs: float,
    ) -> bool:
        """Waits for the model, and makes the worker's own state; False: the view is out of date."""
        is_begun = False
        try:
            is_of_now = self._await(view.generation, lost_generation, max_wait_secs) == view
            # A server that came back at the same address is empty until the chief has noticed.
            if is_of_now and session.run(self._built.uninitialized).size == 0:
                session.run(self._built.local_init_with_tables)
                log.info("session over generation %d", view.generation)
                is_begun = True
        except PREEMPTION_ERRORS as error:
            self._note_failed(view, error)
        finally:
            if not is_begun:
                session.close()
        return is_begun

    def _note_failed(self, view: ClusterView, error: Exception) -> None:
        log.warning("no session over generation %d: %s", view.generation, reason_of(error))
        if self._cancelled():
            raise JobStopping
