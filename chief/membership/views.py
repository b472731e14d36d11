"""The views of a job: generations of its parameter servers.

Pure bookkeeping behind one lock: no network, no TensorFlow, and the clock is a parameter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ...cluster.spec import ClusterView, Member, Role, Task
from .registry import Registry
from .tasks import TaskRecord, TaskState


class Views(Registry):
    """The tasks of a job and the view of its parameter servers; see `Registry`.

    Args:
        num_ps: Places of parameter servers.
        lease_secs: Seconds after which a silent task counts as lost.
        ps_on_workers: Whether workers hold the parameters, for the words of `missing`.
        clock: Seconds from any origin.
        stood_still_secs: Returns the seconds for which this process was suspended so far.
    """

    def __init__(
        self,
        *,
        num_ps: int,
        lease_secs: float,
        ps_on_workers: bool = False,
        clock: Callable[[], float] = time.monotonic,
        stood_still_secs: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__(
            num_ps=num_ps, lease_secs=lease_secs, clock=clock, stood_still_secs=stood_still_secs
        )
        self._ps_on_workers = ps_on_workers
        self._generation = 0
        self._layout = 0
        self._view: ClusterView | None = None
        self._over = 0

    def adopt(
        self, generation: int, records: list[TaskRecord], num_ps: int | None = None, layout: int = 0
    ) -> bool:
        """Takes over the tasks of an earlier chief, with a whole lease each.

        Returns:
            Whether its generation continues: all parameter servers were there.
        """
        with self.changed:
            self._places.num_ps, self._layout = num_ps or self.num_ps, layout
            for record in records:
                record.heard = self._clock()
                record.session_generation = generation if record.task.role is Role.WORKER else 0
                self._places.put(record)
            self._failed = [record for record in records if record.state is TaskState.FAILED]
            self._generation = generation - 1
            self._renew_view()
            return self._view is not None

    def renew_generation(self) -> None:
        """Starts a new generation with the same parameter servers, whose state is not used."""
        with self.changed:
            self._renew_view()

    def candidates(self, num_ps: int) -> tuple[Member, ...] | None:
        """Returns the servers for another number of places: those of the view, then spares.

        Returns:
            The servers; None while there are too few of them, or one of the view is lost.
        """
        with self.changed:
            if self._view is None:
                return None
            free = [Member(r.address, r.incarnation) for r in self._places.spares()]
            servers = (*self._view.ps, *free)[:num_ps]
            return servers if len(servers) == num_ps else None

    def resize(self, servers: Sequence[Member]) -> None:
        """Begins a generation in which the model is spread over other servers; see `candidates`.

        A spare takes the place in which it is listed, and a server that is not listed any more is
        dismissed. If a listed server was lost meanwhile, its place is empty.
        """
        with self.changed:
            self._places.resize(servers)
            self._layout += 1
            self._renew_view()
            self._fill_places()

    def find_life(self, task: Task, incarnation: str) -> TaskRecord | None:
        """Returns the record of one life of a process, also if it is another task by now."""
        return self._places.life(task, incarnation)

    def take_touched(self) -> set[str]:
        """Returns the processes that have news of their own since the last call."""
        with self.changed:
            touched, self._touched = self._touched, set()
            return touched

    @property
    def size(self) -> int:
        """Tasks that ever were, and whose place no other has taken."""
        return len(self._places)

    @property
    def generation(self) -> int:
        """The newest generation; 0 before all parameter servers have come for the first time."""
        return self._generation

    @property
    def view(self) -> ClusterView | None:
        """The parameter servers of the newest generation; None while one is missing."""
        return self._view

    @property
    def num_ps(self) -> int:
        """Places of parameter servers."""
        return self._places.num_ps

    @property
    def layout(self) -> int:
        """Counts the changes of `num_ps`."""
        return self._layout

    @property
    def over(self) -> int:
        """The newest generation that is over."""
        return self._over

    # -- inner workings; the lock is held

    def _joined(self, record: TaskRecord) -> None:
        if record.state is TaskState.SPARE:
            self._fill_places()
        elif record.task.role is Role.PS:
            self._renew_view()

    def _gone(self, record: TaskRecord) -> None:
        is_in_view = record.task.role is Role.PS and record.task.index < self.num_ps
        if is_in_view and not self._stopping:
            self._view = None
            self._over = self._generation
            self._fill_places()
        super()._gone(record)

    def _fill_places(self) -> None:
        if self._places.fill():
            self._renew_view()

    def _renew_view(self) -> None:
        servers = self.up(Role.PS)
        if len(servers) < self.num_ps:
            self._view = None
            return
        self._generation += 1
        members = tuple(Member(r.address, r.incarnation) for r in servers)
        self._view = ClusterView(self._generation, members, self._layout)
        self.changed.notify_all()
