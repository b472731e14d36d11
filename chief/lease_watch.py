"""The release of the chief's session from lost parameter servers, whatever it waits for."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

from ..cluster.leavable_session import LeavableSession
from ..cluster.spec import ClusterView
from .changes import Looks
from .membership.membership import Membership

log = logging.getLogger(__name__)

LOOK_SECS = 0.1
_END_SECS = 5.0


class LeaseWatch:
    """A thread that checks leases, and makes calls of the chief's session fail with a lost server.

    A call that needs a frozen server would keep the chief waiting, while no thread checks the
    leases. A context manager, for as long as the session is used.

    Args:
        membership: The tasks of the job.
        view: The parameter servers of the session.
        session: Abandoned as soon as the view's servers are not those of the job any more.
    """

    def __init__(self, membership: Membership, view: ClusterView, session: LeavableSession) -> None:
        self._membership = membership
        self._view = view
        self._session = session
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        with self._membership.changed:
            self._membership.changed.notify_all()  # A recovery waits for this.
        self._thread.join(_END_SECS)

    @property
    def is_running(self) -> bool:
        """True if the thread lives."""
        return self._thread.is_alive()

    def _run(self) -> None:
        membership = self._membership
        looks = Looks(membership.changed)
        while not self._ended.is_set():
            for task in membership.expire():
                log.warning("%s is lost: its lease ran out", task)
            if membership.view != self._view:
                self._session.leave(membership.missing())
                return
            looks.wait(LOOK_SECS)
