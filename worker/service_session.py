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
from ..cluster.runtime import TensorFlowServer, session_config
from ..cluster.session import PREEMPTION_ERRORS, open_session
from ..cluster.spec import ClusterView
from ..cluster.transfer import DataPlane, prepare
from ..errors import WaitTimeout
from ..model.graph import TrainGraph

log = logging.getLogger(__name__)

# A view may name a server that died a moment ago; then the chief is asked again, soon at first.
FIRST_ATTEMPT_SECS = 2.0
LAST_ATTEMPT_SECS = 15.0


class ServiceSessionCreator(tf.compat.v1.train.SessionCreator):
    """Waits until the model is ready, then opens a session over its parameter servers.

    A `MonitoredSession` asks it again whenever a session broke.

    Args:
        client: A registered client.
        built: The worker's graph.
        server: This process's TensorFlow server.
        max_wait_secs: Seconds to wait for the model to be ready.
        data_plane: How tensors cross between tasks.
        cancelled: Whether this worker has to stop.
    """

    def __init__(
        self,
        client: MembershipClient,
        built: TrainGraph,
        server: TensorFlowServer,
        max_wait_secs: float,
        data_plane: DataPlane,
        cancelled: Callable[[], bool],
    ) -> None:
        self._client = client
        self._built = built
        self._server = server
        self._max_wait_secs = max_wait_secs
        self._data_plane = data_plane
        self._cancelled = cancelled
        self._session: LeavableSession | None = None
        self._epoch = 0
        self._over = 0
        self._lock = threading.Lock()

    def notice(self, epoch: int) -> None:
        """Has a step over the parameter servers of an epoch fail, even one that waits for ever.

        May be called from any thread.

        Args:
            epoch: The newest epoch that is over.
        """
        with self._lock:
            self._over = max(self._over, epoch)
            session = self._session
        if session is not None and self._epoch <= epoch:
            session.leave(f"epoch {self._epoch} is over")

    def abandon(self) -> None:
        """Has the step under way fail; may be called from any thread of a worker that has to go."""
        with self._lock:
            session = self._session
        if session is not None:
            session.leave("this worker has to go")

    def create_session(self) -> Any:
        """Opens a session.

        Raises:
            WaitTimeout: The model was not ready in time.
            JobStopping: The job is ending.
        """
        if not self._built.graph.finalized:  # Not earlier: hooks may add to it when they begin.
            prepare(self._built.graph, self._data_plane, self._built.steps)
            self._built.graph.finalize()
        deadline = Deadline.after(self._max_wait_secs)
        attempt_secs = FIRST_ATTEMPT_SECS
        lost_epoch, self._session = self._epoch, None
        for pause in growing_pauses():
            view = self._client.await_ready(
                min_epoch=max(1, lost_epoch),
                max_wait_secs=max(deadline.remaining_secs(), pause),
                lost_epoch=lost_epoch,
                cancelled=self._cancelled,
            )
            session = self._open(view, Deadline.after(attempt_secs))
            attempt_secs = min(2 * attempt_secs, LAST_ATTEMPT_SECS)
            if session is not None and self._take(session, view.epoch):
                return session
            lost_epoch = view.epoch
            if not deadline.remaining_secs():
                raise WaitTimeout(
                    f"max_wait_secs={self._max_wait_secs:g} ran out: no session over epoch "
                    f"{view.epoch} ({', '.join(member.address for member in view.ps)})"
                )
            deadline.sleep(pause)
        raise AssertionError("the pauses never end")

    def _take(self, session: LeavableSession, epoch: int) -> bool:
        """Keeps a session, unless its epoch was over before it was there."""
        with self._lock:
            self._epoch, self._session = epoch, session
            is_over = epoch <= self._over
        if is_over:
            session.leave(f"epoch {epoch} is over")
            session.close()
        return not is_over

    def _open(self, view: ClusterView, deadline: Deadline) -> LeavableSession | None:
        """A session over a view; None if the view turned out to be out of date."""
        config = session_config(view, self._client.registration.task, self._server.address)
        try:
            session = open_session(
                self._server.target, self._built.graph, config, deadline, LeavableSession
            )
            assert isinstance(session, LeavableSession)
            # A server that came back at the same address is empty until the chief has noticed.
            if session.run(self._built.uninitialized).size == 0:
                session.run(self._built.local_init_with_tables)
                log.info("session over epoch %d", view.epoch)
                return session
            session.close()
        except (*PREEMPTION_ERRORS, tf.errors.DeadlineExceededError) as error:
            log.warning("no session over epoch %d: %s", view.epoch, type(error).__name__)
        if self._cancelled():
            raise JobStopping
        return None
