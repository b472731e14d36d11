"""The preparation of a job for the wanted workers and parameter servers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from ...cluster.deadline import call_in_background
from ...cluster.spec import ClusterView, Member, Role
from ..membership.membership import Membership
from .layout import Layout
from .moving import Move, plan_move
from .plan import ScaleTarget

log = logging.getLogger(__name__)

Build = Callable[[int, int], Layout]


class Resizing:
    """Preparation of another number of parameter servers, while training continues.

    The new graph is built, and the move to it planned, beside the training; so steps are held only
    for the move itself.

    Args:
        plan: The wanted numbers.
        membership: The tasks of the job.
        layout: The present layout.
        build: Builds a layout, given its number of parameter servers and its number.
        heartbeat_secs: Seconds between two heartbeats of a worker.
    """

    def __init__(
        self,
        plan: ScaleTarget,
        membership: Membership,
        layout: Layout,
        build: Build,
        heartbeat_secs: float,
    ) -> None:
        self._heartbeat_secs = heartbeat_secs
        self._plan = plan
        self._membership = membership
        self._layout = layout
        self._build = build
        self._building: tuple[int, Future[tuple[Layout, Move]]] | None = None
        self._lock = threading.Lock()
        self._told_at = 0.0
        plan.next = None

    def look(self, view: ClusterView) -> bool:
        """Prepares as much as possible; returns whether all is ready.

        Args:
            view: The present parameter servers.
        """
        wanted = self._plan.ps
        if self._plan.limits_workers:
            self._membership.dismiss(Role.WORKER, above=self._plan.workers)
        if wanted == len(view.ps) or self._membership.candidates(wanted) is None:
            return False
        if self._building is None or self._building[0] != wanted:
            log.info("making ready for %d parameter servers", wanted)
            self._building = wanted, call_in_background("resizing", lambda: self._prepare(wanted))
            self._plan.next = wanted, self._layout.number + 1
            self._told_at = time.monotonic()
            with self._membership.changed:
                self._membership.changed.notify_all()
        # Workers learn of it now, and build as long as the chief does.
        are_told = time.monotonic() - self._told_at > 2 * self._heartbeat_secs
        return self._building[1].done() and are_told

    def take(self) -> tuple[tuple[Member, ...], Layout, Move] | None:
        """Returns the prepared servers, the new layout, and the move to it.

        Returns:
            None if one of the servers was lost meanwhile.

        Raises:
            Exception: The model cannot be built for the wanted number, or not be moved there.
        """
        assert self._building is not None
        wanted, building = self._building
        layout, move = building.result()
        servers = self._membership.candidates(wanted)
        return None if servers is None else (servers, layout, move)

    def give_up(self) -> None:
        """Keeps the present number of parameter servers."""
        self._plan.ps, self._plan.next, self._building = self._layout.num_ps, None, None

    def _prepare(self, num_ps: int) -> tuple[Layout, Move]:
        # Two graphs at once would want twice the memory, and be no faster.
        with self._lock:
            layout = self._build(num_ps, self._layout.number + 1)
            return layout, plan_move(self._layout.built, layout.built)
