"""What the chief does when a parameter server is gone: finds out which, and puts the model back."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Any

from ..cluster.address import parse_address
from ..cluster.spec import ClusterView
from ..cluster.storage import Storage
from ..model.graph import TrainGraph
from .checkpoint_files import Checkpoint, find_checkpoints
from .initialization import adopt, initialize
from .membership import Membership
from .mirrors import Mirrors, RestorePoint

log = logging.getLogger(__name__)

_LOOK_SECS = 0.05
_PROBE_SECS = 1.0


def find_lost(
    membership: Membership,
    view: ClusterView,
    lease_secs: float,
    interrupted: Callable[[], bool],
) -> None:
    """Returns when the parameter servers of a view are no longer those of the job.

    A server whose process is gone refuses connections, and is taken as gone at once; one that is
    frozen or cut off is taken as gone when its lease runs out. If all of them live, only sessions
    broke; then an epoch of the same servers begins.

    Args:
        membership: The tasks of the job.
        view: The parameter servers whose sessions broke.
        lease_secs: Seconds after which a silent server is taken as gone.
        interrupted: Whether to give up.
    """
    membership.mark_unready(view.epoch)
    deadline = time.monotonic() + lease_secs + 1.0
    while membership.view == view and time.monotonic() < deadline and not interrupted():
        for member in view.ps:
            if is_refused(member.address) and membership.lose(member, "its process is gone"):
                log.warning("the parameter server at %s is gone", member.address)
        membership.expire()
        with membership.changed:
            if membership.view == view:
                membership.changed.wait(_LOOK_SECS)
    if membership.view == view:
        membership.renew_epoch()


def is_refused(address: str) -> bool:
    """Whether the host at an address says that nobody listens there."""
    peer = parse_address(address)
    try:
        socket.create_connection((peer.host, peer.port), _PROBE_SECS).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # Silence may be a slow network.
        return False
    return False


class Restorer:
    """Gives the model its values at the start of each epoch.

    Args:
        built: The chief's graph.
        logdir: Where checkpoints are: a path, a URL or an open storage.
        mirrors: Restore points in memory, if there are any.
        recovery: "rollback": all servers go back to one point; "partial": only those that are new.
        attached: Whether the servers hold the model already, of an earlier chief.
        on_passed_over: See `initialize`.
    """

    def __init__(
        self,
        built: TrainGraph,
        logdir: str | Storage,
        mirrors: Mirrors | None,
        recovery: str,
        attached: bool = False,
        on_passed_over: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._built = built
        self._logdir = logdir
        self._mirrors = mirrors
        self._recovery = recovery
        self._attached = attached
        self._on_passed_over = on_passed_over
        self._view: ClusterView | None = None
        self.found_alive = False

    def restore(self, session: Any, view: ClusterView) -> Checkpoint | RestorePoint | None:
        """Initializes or restores the model on the parameter servers of a view.

        Args:
            session: The chief's session over them.
            view: The parameter servers.

        Returns:
            What it was restored from: a checkpoint or a restore point; None for a fresh start. If
            the model was there already, the newest checkpoint, or None.

        Raises:
            JobFailed: See `initialize`.
            tf.errors.OpError: A parameter server is gone.
        """
        attached, self._attached = self._attached, False
        self.found_alive = attached and session.run(self._built.uninitialized).size == 0
        if self.found_alive:
            session.run(self._built.local_init_op)
            log.info("the model is there: nothing is restored")
            self._view = view
            return adopt(self._built, self._logdir)
        lost = self._lost(view)
        restored: Checkpoint | RestorePoint | None
        if self._mirrors is not None and self._are_best(self._mirrors, lost):
            only_lost = self._recovery == "partial" and bool(lost)
            restored = self._mirrors.restore(session, lost, only_lost=only_lost)
            session.run(self._built.local_init_op)
            log.info("back at step %d, out of memory", restored.global_step)
        else:
            if self._mirrors is not None:
                self._mirrors.forget()
            restored = initialize(
                self._built, session, self._logdir, on_passed_over=self._on_passed_over
            )
        self._view = view
        return restored

    def _lost(self, view: ClusterView) -> frozenset[int]:
        before = self._view.ps if self._view is not None else ()
        return frozenset(
            index
            for index, member in enumerate(view.ps)
            if index >= len(before) or before[index] != member
        )

    def _are_best(self, mirrors: Mirrors, lost: frozenset[int]) -> bool:
        newest = next((step for step, _ in find_checkpoints(self._logdir)), -1)
        point = mirrors.point
        return point is not None and newest <= point.global_step and mirrors.survives(lost)
