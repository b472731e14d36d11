"""The places of tasks in a job, and the replacement of a lost task in its place.

Sessions supply the cluster definition. So a spare, which is a server beyond the first `num_ps`,
takes a place when it is listed there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from ...cluster.address import validate_address
from ...cluster.applicant import Applicant
from ...cluster.spec import Member, Role, Task
from ...errors import UsageError
from .tasks import TaskRecord, TaskState

# The chief still counts tasks whose input ended, and reports failed ones.
_FREE_AGAIN = (TaskState.LOST, TaskState.DONE, TaskState.PREEMPTED)


class TaskHeld(Exception):
    """The asked place is held by a live task.

    Attributes:
        holders: The holder; if no place was asked for, every task that holds one.
    """

    def __init__(self, message: str, holders: Sequence[TaskRecord] = ()) -> None:
        super().__init__(message)
        self.holders = holders


class Places:
    """The newest life of every task; to be used by one thread at a time.

    Args:
        num_ps: Places of parameter servers.
        age: Returns the seconds since a task's last heartbeat.

    Attributes:
        num_ps: Places of parameter servers.
    """

    def __init__(self, num_ps: int, age: Callable[[TaskRecord], float]) -> None:
        self.num_ps = num_ps
        self._age = age
        self._tasks: dict[Task, TaskRecord] = {}
        # The tasks of one process in the job; and the tasks of each role, by index.
        self._lives: dict[str, tuple[TaskRecord, ...]] = {}
        self._ordered: dict[Role, list[TaskRecord]] = {role: [] for role in sorted(Role)}
        # No lower index of a role is free.
        self._lowest: dict[Role, int] = dict.fromkeys(Role, 0)

    def __len__(self) -> int:
        return len(self._tasks)

    def get(self, task: Task) -> TaskRecord | None:
        """Returns the newest life of a task."""
        return self._tasks.get(task)

    def put(self, record: TaskRecord) -> None:
        """Gives a life its place; a former holder is forgotten."""
        self._drop(record.task)
        self._tasks[record.task] = record
        self._lives[record.incarnation] = (*self._lives.get(record.incarnation, ()), record)
        ordered = self._ordered[record.task.role]
        ordered.insert(bisect_left(ordered, record.task.index, key=_index), record)

    def note_gone(self, record: TaskRecord) -> None:
        """Notes that the place of a task may be free."""
        role, index = record.task.role, record.task.index
        self._lowest[role] = min(self._lowest[role], index)

    def records(self, role: Role | None = None) -> list[TaskRecord]:
        """Returns the newest life of every task, by role and index."""
        if role is not None:
            return list(self._ordered[role])
        return [record for ordered in self._ordered.values() for record in ordered]

    def first_up(self, role: Role) -> TaskRecord | None:
        """Returns the task of a role with the lowest index among those that are up."""
        return next((r for r in self._ordered[role] if r.state is TaskState.UP), None)

    def of_life(self, incarnation: str) -> tuple[TaskRecord, ...]:
        """Returns all tasks of one process in the job."""
        return self._lives.get(incarnation, ())

    def up(self, role: Role | None = None) -> list[TaskRecord]:
        """Returns the tasks that are up."""
        return [r for r in self.records(role) if r.state is TaskState.UP]

    def alive(self, role: Role | None = None) -> list[TaskRecord]:
        """Returns the tasks that are up, and the spares."""
        return [r for r in self.records(role) if r.is_alive]

    def asking_again(self, role: Role, index: int | None, incarnation: str) -> TaskRecord | None:
        """Returns the record of a task that asks again, after its first answer was lost."""
        same = (r for r in self.of_life(incarnation) if r.task.role is role and r.is_alive)
        return next((r for r in same if index in (None, r.task.index)), None)

    def life(self, task: Task, incarnation: str) -> TaskRecord | None:
        """Returns the record of one life, also if it is another task by now."""
        record = self._tasks.get(task)
        if record is not None and record.incarnation == incarnation:
            return record
        same = (r for r in self.of_life(incarnation) if r.task.role is task.role)
        return next(same, None)

    def check(self, applicant: Applicant) -> str:
        """Checks a task before it registers: a view could not be made of every address.

        Returns:
            The address, in the form in which addresses are compared.

        Raises:
            TaskHeld: A parameter server of another life has the address.
            UsageError: The role cannot register, or not as a spare; or the process has another
                place in the role.
            ValueError: The address is malformed.
        """
        role = applicant.role
        if role not in (Role.PS, Role.WORKER):
            raise UsageError(f"role {role!r} does not register; expected ps or worker")
        if applicant.spare and role is not Role.PS:
            raise UsageError(f"a spare {role}: only a parameter server can be a spare")
        address = validate_address(applicant.address, f"address of this {role}")
        for record in self.of_life(applicant.incarnation):
            if record.task.role is role and record.is_alive:
                raise UsageError(f"this process is {record.task} already: start another for a task")
        if role is Role.PS:
            same = [r for r in self.alive(Role.PS) if r.address == address]
            if same:
                raise TaskHeld(f"{address} is the address of {same[0].task}", same)
        return address

    def find_place(self, role: Role, index: int | None, incarnation: str) -> Task:
        """Returns the place for a task: the asked one, or the lowest free one.

        Raises:
            TaskHeld: The asked place, or every place of a parameter server, is held.
            UsageError: The index is out of range.
        """
        if index is not None:
            _check_index(role, index, self.num_ps)
            held = self._tasks.get(Task(role, index))
            if held and held.is_alive and held.incarnation != incarnation:
                raise TaskHeld(
                    f"{held.task} is held by {held.address}, last heard of "
                    f"{self._age(held):.1f} s ago",
                    [held],
                )
            return Task(role, index)
        free = self._lowest[role]
        while (held := self._tasks.get(Task(role, free))) and held.state not in _FREE_AGAIN:
            free += 1
        self._lowest[role] = free
        if role is Role.PS and free >= self.num_ps:
            raise TaskHeld(f"all {self.num_ps} parameter servers are there already", self.up(role))
        return Task(role, free)

    def find_spare_place(self) -> Task:
        """Returns the place of one more spare."""
        taken = {r.task.index for r in self.alive(Role.PS)}
        free = (i for i in range(self.num_ps, self.num_ps + len(taken) + 1) if i not in taken)
        return Task(Role.PS, next(free))

    def spares(self) -> list[TaskRecord]:
        """Returns the parameter servers that stand by."""
        return [r for r in self.alive(Role.PS) if r.is_free_spare]

    def fill(self) -> bool:
        """Puts spares in the places of parameter servers that were lost; whether there were any."""
        spares = iter(self.spares())
        has_filled = False
        for index in range(self.num_ps):
            held = self._tasks.get(Task(Role.PS, index))
            # A place that was never held is for the tasks that come at the start.
            if held is None or held.is_alive or (spare := next(spares, None)) is None:
                continue
            has_filled = True
            self._drop(spare.task)
            spare.task, spare.state = held.task, TaskState.UP
            self.put(spare)
        return has_filled

    def resize(self, servers: Sequence[Member]) -> None:
        """Gives the places to other servers; servers without a place are dismissed."""
        lives = {record.incarnation: record for record in self.records(Role.PS)}
        for record in lives.values():
            self._drop(record.task)
        self._lowest[Role.PS] = 0
        self.num_ps = len(servers)
        for index, member in enumerate(servers):
            record = lives.pop(member.incarnation)
            record.task = Task(Role.PS, index)
            record.state = TaskState.UP if record.is_alive else record.state
            self.put(record)
        for record in filter(lambda left: left.is_alive, lives.values()):
            record.is_dismissed |= record.state is TaskState.UP
            record.task, record.state = self.find_spare_place(), TaskState.SPARE
            self.put(record)

    def describe_gaps(self, ps_on_workers: bool) -> Iterator[str]:
        """Describes missing tasks, for people: tasks, addresses, last heartbeats."""
        for index in range(self.num_ps):
            record = self._tasks.get(Task(Role.PS, index))
            name = f"ps:{index} on worker:{index}" if ps_on_workers else f"ps:{index}"
            if record is None:
                yield f"{name} (never heard of)"
            elif record.state is not TaskState.UP:
                place = (
                    f"{record.address}, {record.state}, last heard of {self._age(record):.1f} s ago"
                )
                yield f"{name} ({place})"

    def _drop(self, task: Task) -> None:
        record = self._tasks.pop(task, None)
        if record is None:
            return
        left = tuple(r for r in self._lives[record.incarnation] if r is not record)
        self._lives[record.incarnation] = left
        if not left:
            del self._lives[record.incarnation]
        ordered = self._ordered[task.role]
        del ordered[bisect_left(ordered, task.index, key=_index)]


def _check_index(role: Role, index: int, num_ps: int) -> None:
    if index < 0 or (role is Role.PS and index >= num_ps):
        limit = f" below {num_ps} (--ps)" if role is Role.PS else ""
        raise UsageError(f"index {index} of a {role}: expected 0 or more{limit}")


def _index(record: TaskRecord) -> int:
    return record.task.index
