"""The chief's handling of a lost parameter server: finding it, and restoring the model."""

from __future__ import annotations

import enum
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..cluster.address import parse_address
from ..cluster.logdir.interface import LogDirectory
from ..cluster.spec import ClusterView
from ..data_plane.sync.tokens import newest_rounds
from ..model.graph import TrainGraph
from .checkpoints.files import Checkpoint, find_checkpoints
from .checkpoints.initialization import adopt, initialize
from .checkpoints.mirrors import Mirrors, RestorePoint
from .membership.membership import Membership

log = logging.getLogger(__name__)

PROCESS_GONE = "its process is gone"
_LOOK_SECS = 0.05
_PROBE_SECS = 1.0


def find_lost(
    membership: Membership,
    view: ClusterView,
    lease_secs: float,
    interrupted: Callable[[], bool],
) -> None:
    """Returns when the parameter servers of a view are no longer those of the job.

    A server whose process is gone refuses connections, and is lost at once. A server that is frozen
    or cut off is lost when its lease runs out. If all of them live, only sessions broke; then a
    generation of the same servers begins.

    Args:
        membership: The tasks of the job.
        view: The parameter servers whose sessions broke.
        lease_secs: Seconds after which a silent server counts as lost.
        interrupted: Returns whether to give up.
    """
    membership.mark_unready(view.generation)
    deadline = time.monotonic() + lease_secs + 1.0
    while membership.view == view and time.monotonic() < deadline and not interrupted():
        for member in view.ps:
            if is_refused(member.address) and membership.lose(member.incarnation, PROCESS_GONE):
                log.warning("the parameter server at %s is gone", member.address)
        membership.expire()
        with membership.changed:
            if membership.view == view:
                membership.changed.wait(_LOOK_SECS)
    if membership.view == view:
        membership.renew_generation()


def is_refused(address: str) -> bool:
    """Returns whether the host at an address refuses connections, because no process listens."""
    peer = parse_address(address)
    try:
        socket.create_connection((peer.host, peer.port), _PROBE_SECS).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # Silence may be a slow network.
        return False
    return False


def is_whole(built: TrainGraph, session: Any) -> bool:
    """Returns whether the model is initialized, and no step of sync mode is partly applied.

    Call it when no other session could apply anything. A step of sync mode takes its gradients out
    of every accumulator. If it has begun, some have fewer of them, or all have none though workers
    have given theirs. An async worker's step that ends half-way is no worse than a worker that
    dies: the others have trained on beside it in any case.
    """
    if session.run(built.uninitialized).size:
        return False
    if built.sync is None:
        return True
    counts, (keys, rows), number = session.run(
        [[each.count for each in built.sync.leftovers], built.sync.ledger_rows, built.sync.round]
    )
    given = any(pushed[1] == number for pushed in newest_rounds(keys, rows).values())
    return len(set(map(int, counts))) == 1 and (int(counts[0]) > 0 or not given)


class Held(enum.Enum):
    """The model that parameter servers hold before a generation begins."""

    NOTHING = enum.auto()
    EARLIER_CHIEFS = enum.auto()  # Of a chief of this job that is gone.
    MOVED = enum.auto()  # Of this chief, copied to these servers.
    OWN = enum.auto()  # Of this chief, if no server is missing and no step half applied.


@dataclass(frozen=True)
class Premise:
    """The state of the model, as far as known before the start of a generation.

    Attributes:
        held: The model that the servers should hold. `Restorer` finds out whether it is whole.
        point: Its training state, if it was moved.
    """

    held: Held = Held.NOTHING
    point: RestorePoint | None = None


NO_PREMISE = Premise()


@dataclass(frozen=True)
class Restored:
    """The outcome of a restore at the start of a generation.

    Attributes:
        source: Source of its values: a checkpoint or a restore point; None for a fresh start. If
            the model was kept, the newest checkpoint, or None.
        kept: The kept one of the models that the servers held; NOTHING: it was restored.
    """

    source: Checkpoint | RestorePoint | None
    kept: Held = Held.NOTHING


class Restorer:
    """Restorer of the model's values at the start of each generation.

    Args:
        built: The chief's graph.
        logdir: Place of the checkpoints: a path, a URL or an open log directory.
        mirrors: Restore points in memory, if there are any.
        recovery: "rollback": all servers return to one point; "partial": only the new ones.
        on_passed_over: See `initialize`.
    """

    def __init__(
        self,
        built: TrainGraph,
        logdir: str | LogDirectory,
        mirrors: Mirrors | None,
        recovery: str,
        on_passed_over: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._built = built
        self._logdir = logdir
        self._mirrors = mirrors
        self._recovery = recovery
        self._on_passed_over = on_passed_over
        self._view: ClusterView | None = None

    @property
    def point(self) -> RestorePoint | None:
        """The newest restore point in memory."""
        return self._mirrors.point if self._mirrors is not None else None

    def restore(self, session: Any, view: ClusterView, premise: Premise = NO_PREMISE) -> Restored:
        """Initializes or restores the model on the parameter servers of a view.

        Args:
            session: The chief's session over them.
            view: The parameter servers.
            premise: The expected state. The model is kept if it is whole.

        Raises:
            JobFailed: See `initialize`.
            tf.errors.OpError: A parameter server is gone.
        """
        lost = self._lost(view)
        if self._is_there(session, premise.held, lost):
            session.run(self._built.local_init_op)
            log.info("the model is whole: nothing is restored")
            checkpoint = adopt(self._built, self._logdir)
            restored = Restored(premise.point or checkpoint, premise.held)
        else:
            restored = Restored(self._put_back(session, lost))
        self._view = view
        return restored

    def _is_there(self, session: Any, held: Held, lost: frozenset[int]) -> bool:
        match held:
            case Held.NOTHING:
                return False
            case Held.OWN:
                return not lost and is_whole(self._built, session)
            case Held.EARLIER_CHIEFS | Held.MOVED:
                return bool(session.run(self._built.uninitialized).size == 0)

    def _put_back(self, session: Any, lost: frozenset[int]) -> Checkpoint | RestorePoint | None:
        """Restores the newest restore point or checkpoint, or begins with initial values."""
        if self._mirrors is None or not self._are_best(self._mirrors, lost):
            if self._mirrors is not None:
                self._mirrors.forget()
            return initialize(
                self._built, session, self._logdir, on_passed_over=self._on_passed_over
            )
        only_lost = self._recovery == "partial" and bool(lost)
        point = self._mirrors.restore(session, lost, only_lost=only_lost)
        session.run(self._built.local_init_op)
        log.info("back at step %d, out of memory", point.global_step)
        return point

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
