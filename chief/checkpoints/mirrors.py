"""Restore points in memory: each parameter server keeps a copy of its neighbour's variables.

A restore point is taken in two moves. First each server notes its own variables under another name,
which copies nothing yet: TensorFlow copies a value in use only when it is written next. Then the
notes cross to the neighbours while training continues. Only then the point counts. Until then the
former one does, so there are two of each.

A lost server's variables come back from its neighbour. The other servers are at a later step by
then, and return to their own notes: the whole model is the one of a single moment.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ...cluster.spec import Role, Task
from ...model.graph import TrainGraph
from ...reasons import reason_of

v1 = tf.compat.v1
log = logging.getLogger(__name__)

_SLOTS = 2
# Seconds for which a restore point waits for the step under way, so that it falls between two.
PAUSE_SECS = 5.0
# A server that is new has no copies of its neighbour's variables: they are made soon.
_SOON_SECS = 0.05
# Of how many restore points the slowest says how long the next one may take.
_REMEMBERED = 8
_LEAST_SHARE = 0.25
# Share of the requested seconds: a step under way, or a slower copy, is added to it.
_PLANNED_SHARE = 0.9


@dataclass(frozen=True)
class RestorePoint:
    """A point to which the model can be restored.

    Attributes:
        slot: Index of the point, of two.
        global_step: The step it was taken at.
        notes: Parameter servers that have notes of their own variables, by index.
        copies: Parameter servers whose neighbour has a copy of them.
        extra: The rest of the point, see `Mirrors.take`.
    """

    slot: int
    global_step: int
    notes: frozenset[int]
    copies: frozenset[int]
    extra: Any = None


@dataclass(frozen=True)
class _Shard:
    """The ops for the variables of one server, in one slot."""

    note: Any
    send: Any
    from_note: Any
    from_copy: Any


class Mirrors:
    """The ops of restore points in the chief's graph, and the points themselves.

    Make it before the graph is finalized.

    Args:
        built: The chief's graph; added to.
        num_ps: Parameter servers. With one, the chief holds the copy.
        chief: The chief's task.

    Attributes:
        point: The newest restore point, if there is one.
        is_wanted_soon: Whether the copies of a server were lost, and not made again since.
    """

    def __init__(self, built: TrainGraph, num_ps: int, chief: Task) -> None:
        self._built = built
        self._num_ps = num_ps
        self._chief = chief
        self._next_slot = 0
        self.is_wanted_soon = False
        self._life = 0
        self.point: RestorePoint | None = None
        with built.graph.as_default(), v1.device(None), tf.name_scope("mirrors"):
            by_server = _by_server(built.graph)
            self._shards = [
                {i: self._shard(slot, i, found) for i, found in by_server.items()}
                for slot in range(_SLOTS)
            ]

    @property
    def servers(self) -> frozenset[int]:
        """Parameter servers that hold variables, by index."""
        return frozenset(self._shards[0])

    def survives(self, lost: Collection[int]) -> bool:
        """Returns whether a restore point exists that survives the loss of some servers at once."""
        point = self.point
        if point is None:
            return False
        copies = {i for i in point.copies if self._holder(i) not in lost}
        return all(i in (copies if i in lost else point.notes) for i in self.servers)

    def would_survive(self, lost: Set[int]) -> bool:
        """Returns whether a restore point of now would survive the loss of some servers at once."""
        return all(self._holder(i) not in lost for i in lost & self.servers)

    def take(
        self, session: Any, paused: Callable[[], Any], extra: Callable[[], Any]
    ) -> RestorePoint:
        """Takes a restore point.

        Args:
            session: The chief's session.
            paused: Makes a context in which no step is applied.
            extra: Called in it; returns the rest of the point.

        Raises:
            tf.errors.OpError: A parameter server is gone, or the point was abandoned; the former
                one still counts.
        """
        life = self._life
        slot, shards = self._next_slot, self._shards[self._next_slot].values()
        with paused():
            step = int(session.run(self._built.global_step))
            noted = extra()
            session.run([shard.note for shard in shards])
        session.run([shard.send for shard in shards])
        if life != self._life:
            raise tf.errors.CancelledError(None, None, "the restore point was abandoned")
        servers = self.servers
        self.point = RestorePoint(slot, step, servers, servers, noted)
        self._next_slot, self.is_wanted_soon = 1 - slot, False
        return self.point

    def abandon(self) -> None:
        """Says that a point that is being taken will not count: a server does not answer."""
        self._life += 1

    def restore(
        self, session: Any, lost: Collection[int], *, only_lost: bool = False
    ) -> RestorePoint:
        """Restores the model of the newest restore point.

        Args:
            session: A session over the new parameter servers.
            lost: The new servers, by index.
            only_lost: True if the others keep their values.

        Raises:
            tf.errors.OpError: Another server is gone.
        """
        point = self.point
        assert point is not None
        assert self.survives(lost)
        shards = self._shards[point.slot]
        session.run(
            [
                shard.from_copy if index in lost else shard.from_note
                for index, shard in shards.items()
                if index in lost or not only_lost
            ]
        )
        # The notes of lost servers are whole again; the copies that they held are gone.
        gone = {i for i in point.copies if self._holder(i) in lost}
        session.run([shards[i].note for i in lost if i in shards])
        self.point = RestorePoint(
            point.slot, point.global_step, point.notes, point.copies - gone, point.extra
        )
        self._next_slot, self.is_wanted_soon = 1 - point.slot, bool(gone)
        return point

    def forget(self) -> None:
        """Says that the model was restored from elsewhere: there is nothing to go back to."""
        self.point = None

    def _holder(self, index: int) -> int | None:
        return None if self._num_ps == 1 else (index + 1) % self._num_ps

    def _shard(self, slot: int, index: int, variables: Sequence[Any]) -> _Shard:
        holder = self._holder(index)
        there = (self._chief if holder is None else Task(Role.PS, holder)).device + "/cpu:0"
        made: dict[str, list[Any]] = defaultdict(list)
        for variable in variables:
            note = _Copy(variable, f"note/{slot}", variable.device)
            copy = _Copy(variable, f"copy/{slot}", there)
            with v1.device(variable.device):
                made["note"].append(note.write(_value(variable)))
                made["from_note"].append(v1.assign(variable, note.read(), validate_shape=False).op)
            made["send"].append(copy.write(note.read()))
            with v1.device(there):
                back = copy.read()
            with v1.device(variable.device):
                made["from_copy"].append(v1.assign(variable, back, validate_shape=False).op)
        return _Shard(**{name: tf.group(*ops) for name, ops in made.items()})


class _Copy:
    """A variable in no collection: neither saved nor initialized, only written and read."""

    def __init__(self, variable: Any, kind: str, device: str) -> None:
        self._dtype = variable.dtype.base_dtype
        self._device = device
        self._shape = variable.shape
        with v1.device(device):
            self._handle = tf.raw_ops.VarHandleOp(
                dtype=self._dtype,
                shape=variable.shape,
                shared_name=f"paramserve/mirrors/{kind}/{variable.op.name}",
            )

    def write(self, value: Any) -> Any:
        with v1.device(self._device):
            return tf.raw_ops.AssignVariableOp(resource=self._handle, value=value)

    def read(self) -> Any:
        with v1.device(self._device):
            value = tf.raw_ops.ReadVariableOp(resource=self._handle, dtype=self._dtype)
        value.set_shape(self._shape)
        return value


def _by_server(graph: Any) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    for variable in graph.get_collection(v1.GraphKeys.GLOBAL_VARIABLES):
        device = tf.DeviceSpec.from_string(variable.device or "")
        if device.job == Role.PS:
            found[device.task or 0].append(variable)
    return dict(sorted(found.items()))


def _value(variable: Any) -> Any:
    return variable.read_value() if hasattr(variable, "read_value") else tf.identity(variable)


class Pace:
    """The pauses between restore points, so that a loss costs no more than some seconds of steps.

    A loss returns to the newest whole point. Just before the next one is whole, that point is as
    old as the pause between them and the duration of both.

    Args:
        every_secs: Seconds of steps that a loss may cost. At least a quarter of them is paused.
    """

    def __init__(self, every_secs: float) -> None:
        self._every_secs = every_secs
        self._took: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, secs: float) -> None:
        """Notes how long a restore point took."""
        self._took.append(secs)

    @property
    def pause_secs(self) -> float:
        """Seconds from the end of one restore point to the beginning of the next."""
        longest = max(self._took, default=0.0)
        return max(_LEAST_SHARE * self._every_secs, _PLANNED_SHARE * self._every_secs - 2 * longest)


class MirrorService:
    """A thread that takes restore points.

    Args:
        mirrors: Takes the restore points.
        session: The chief's session.
        every_secs: Seconds of steps that a loss may cost, see `Pace`.
        paused: Makes a context in which no step is applied, given how long to wait for it.
        extra: Returns the rest of a restore point, see `Mirrors.take`.
    """

    def __init__(
        self,
        mirrors: Mirrors,
        session: Any,
        every_secs: float,
        paused: Callable[[float], AbstractContextManager[Any]],
        extra: Callable[[], Any] = lambda: None,
    ) -> None:
        self._mirrors = mirrors
        self._session = session
        self._pace = Pace(every_secs)
        self._paused = paused
        self._extra = extra
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirrors", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, max_wait_secs: float = PAUSE_SECS) -> None:
        """Ends the thread, after the restore point that it may be taking.

        Args:
            max_wait_secs: How long to wait for that point; it does not count then.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(max_wait_secs)
        if self._thread.is_alive():
            self._mirrors.abandon()

    def take(self) -> RestorePoint:
        """Takes one now; to be called while no step is applied, and after `stop`.

        Raises:
            tf.errors.OpError: A parameter server is gone; the point before stands.
        """
        return self._mirrors.take(self._session, nullcontext, self._extra)

    def would_survive(self, lost: Set[int]) -> bool:
        """Returns whether a restore point of now would survive the loss of some servers at once."""
        return self._mirrors.would_survive(lost)

    @property
    def is_running(self) -> bool:
        """True if the thread lives."""
        return self._thread.is_alive()

    def _run(self) -> None:
        mirrors = self._mirrors
        soon = mirrors.point is None or mirrors.is_wanted_soon
        while not self._ended.wait(_SOON_SECS if soon else self._pace.pause_secs):
            soon, began = False, time.monotonic()
            try:
                point = mirrors.take(self._session, lambda: self._paused(PAUSE_SECS), self._extra)
                self._pace.note(time.monotonic() - began)
                log.debug("restore point at step %d", point.global_step)
            except (tf.errors.OpError, RuntimeError) as error:
                # The recovery makes a new session, and another of these services.
                if not self._ended.is_set():
                    log.warning("no restore point: %s", reason_of(error))
                return
