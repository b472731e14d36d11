"""The workers and parameter servers that are wanted, and when a job can have them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from ...cluster.deadline import call_in_background
from ...cluster.spec import ClusterView, Member, Role
from ...errors import UsageError
from ...jobs.options import JobOptions
from ..membership.membership import Membership
from .moving import Move, plan_move
from .relocation import Layout

log = logging.getLogger(__name__)
Build = Callable[[int, int], Layout]


class ScaleTarget:
    """The requested numbers; may be read and changed by any thread.

    Args:
        options: The options of the job at its start.
        num_ps: Its present number of parameter servers.

    Attributes:
        workers: Workers wanted.
        ps: Parameter servers wanted.
        next: The number of parameter servers that is being prepared, and its layout; None: none.
        limits_workers: True if the number of workers was requested: before that, any worker that
            joins is welcome.
    """

    def __init__(self, options: JobOptions, num_ps: int) -> None:
        self._options = options
        self.workers = options.num_workers
        self.ps = num_ps
        self.next: tuple[int, int] | None = None
        self.limits_workers = False

    def ask(self, *, workers: int | None = None, ps: int | None = None) -> None:
        """Requests other numbers; None keeps one unchanged.

        Raises:
            UsageError: The job cannot have so many.
        """
        self._check("workers", workers)
        self._check("ps", ps)
        if workers is None and ps is None:
            raise UsageError("no numbers to scale to: give --workers N, --ps N, or both")
        if ps not in (None, self.ps) and self._options.ps_on_workers:
            raise UsageError(
                f"--ps {ps}: this job's workers hold the parameters (--ps-on-workers), and their "
                "number is fixed; stop the job, and start it with another number"
            )
        if workers is not None:
            self._check_workers(workers)
            self.workers, self.limits_workers = workers, True
        self.ps = self.ps if ps is None else ps

    def _check_workers(self, workers: int) -> None:
        options = self._options
        if options.chief_trains:
            raise UsageError(
                f"--workers {workers}: this job's chief is a worker as well (--chief-trains); "
                "start and stop others by hand, they may come and go"
            )
        if options.ps_on_workers and workers < options.num_ps:
            raise UsageError(
                f"--workers {workers}: {options.num_ps} of this job's workers hold the parameters "
                f"(--ps-on-workers); expected at least {options.num_ps}"
            )

    @staticmethod
    def _check(name: str, value: int | None) -> None:
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: expected at least 1")


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
