"""The cluster: roles, tasks, the static spec of a job and the chief's view of it.

TensorFlow is imported only where a `ClusterDef` is made, so that a command line that merely parses
addresses starts fast.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from .address import GRPC, Address, parse_address, validate_address

if TYPE_CHECKING:
    import tensorflow as tf

_EXAMPLE = '{"cluster": {"chief": ["host:port"], ...}, "task": {"type": "worker", "index": 0}}'


class Role(enum.StrEnum):
    """The role of a process in a job; the value is TensorFlow's job name."""

    CHIEF = "chief"
    PS = "ps"
    WORKER = "worker"
    EVALUATOR = "evaluator"

    @classmethod
    def parse(cls, text: object) -> Role:
        """Returns the role called `text`; TensorFlow 1's "master" is the chief.

        Raises:
            ValueError: If there is no such role.
        """
        for role in cls:
            if text == role:
                return role
        if text == "master":
            return cls.CHIEF
        raise ValueError(f"unknown role {text!r}: use one of {', '.join(cls)}")


@dataclass(frozen=True, order=True)
class Task:
    """One process of a job; `str(task)` is "worker:1".

    Attributes:
        role: The role of the process.
        index: Its number among the tasks of that role, from 0.
    """

    role: Role
    index: int

    def __post_init__(self) -> None:
        if self.index < 0:
            raise ValueError(f"task {self} has a negative index: indices count from 0")

    def __str__(self) -> str:
        return f"{self.role}:{self.index}"

    @property
    def device(self) -> str:
        """The task as a TensorFlow device, e.g. "/job:worker/task:1"."""
        return f"/job:{self.role}/task:{self.index}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a task from "role:index".

        Raises:
            ValueError: If `text` has another form or names an unknown role.
        """
        role, colon, index = text.partition(":")
        if not colon:
            raise ValueError(f"task {text!r} has no index: write role:index, such as worker:1")
        return cls(Role.parse(role), _parse_index(index, f"task {text!r}"))


@dataclass(frozen=True)
class Member:
    """One life of a parameter server.

    Attributes:
        address: Its TensorFlow server's "host:port".
        incarnation: Distinguishes this life from others of the same task.
    """

    address: str
    incarnation: str


@dataclass(frozen=True)
class ClusterView:
    """The parameter servers that make up the job at one time, as the chief hands them out.

    Attributes:
        generation: Counts changes of the parameter servers.
        ps: Every parameter server, in the order of its task index.
        layout: Counts changes of their number, and so of how the model is spread over them.
    """

    generation: int
    ps: tuple[Member, ...]
    layout: int = 0

    def __post_init__(self) -> None:
        if self.generation < 0:
            raise ValueError(
                f"generation={self.generation} is negative: generations count up from 0"
            )
        _check_addresses(
            (Task(Role.PS, index), member.address) for index, member in enumerate(self.ps)
        )

    def cluster_def_for(self, task: Task, address: str) -> tf.train.ClusterDef:
        """Returns the cluster that `task` puts into its sessions: all parameter servers and itself.

        Other workers are left out, so that they can come and go unnoticed.

        Args:
            task: The task that opens the session. A worker that is a parameter server as well
                opens it as the latter, since a session may know a server by one name only.
            address: "host:port" of that task's own TensorFlow server.

        Raises:
            ValueError: If `task` is a parameter server at another address, or `address` is not
                fit for it.
        """
        servers = {index: member.address for index, member in enumerate(self.ps)}
        if task.role is Role.PS:
            if self.server_at(address) != task:
                raise ValueError(
                    f"{task} opens no sessions, or has another address than {address!r}: ask for "
                    "the view of another role"
                )
            return _make_cluster_def({Role.PS: servers})
        _check_addresses(
            [*((Task(Role.PS, index), text) for index, text in servers.items()), (task, address)]
        )
        return _make_cluster_def({Role.PS: servers, task.role: {task.index: address}})

    def device_filters_for(self, task: Task) -> list[str]:
        """Returns the `ConfigProto.device_filters` of a session that `task` opens."""
        return ["/job:ps"] if task.role is Role.PS else ["/job:ps", task.device]

    def server_at(self, address: str) -> Task | None:
        """Returns the parameter server at "host:port", if there is one."""
        addresses = [member.address for member in self.ps]
        return Task(Role.PS, addresses.index(address)) if address in addresses else None


@dataclass(frozen=True)
class ClusterSpec:
    """The static description of a job: the address of each task.

    Attributes:
        chief: The chief's "host:port".
        ps: The parameter servers' "host:port", by task index.
        workers: The workers' "host:port", by task index.
        evaluator: The evaluator's "host:port", if it has one: it takes part in no session.
    """

    chief: str
    ps: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    evaluator: str | None = None

    def __post_init__(self) -> None:
        if not self.chief:
            raise ValueError("the cluster has no chief: give the chief's 'host:port'")
        _check_addresses(self.items())

    def addresses(self, role: Role) -> tuple[str, ...]:
        """Returns the addresses of all tasks of `role`, by task index."""
        match role:
            case Role.CHIEF:
                return (self.chief,)
            case Role.PS:
                return self.ps
            case Role.WORKER:
                return self.workers
            case Role.EVALUATOR:
                return () if self.evaluator is None else (self.evaluator,)

    def items(self) -> Iterator[tuple[Task, str]]:
        """Yields every task with its address."""
        for role in Role:
            for index, address in enumerate(self.addresses(role)):
                yield Task(role, index), address

    def address_of(self, task: Task) -> str:
        """Returns the "host:port" of `task`.

        Raises:
            ValueError: If the cluster has no such task.
        """
        known = self.addresses(task.role)
        if task.index < len(known):
            return known[task.index]
        raise ValueError(
            f"{task} is not in the cluster, which lists {len(known)} task(s) of role {task.role}: "
            "use a smaller index or add its address"
        )

    def master_for(self, task: Task) -> str:
        """Returns the master string "grpc://host:port" of `task`; see `address_of` for errors."""
        return GRPC + self.address_of(task)

    @classmethod
    def from_hosts(
        cls,
        *,
        chief: str | Sequence[str],
        ps: str | Sequence[str] = (),
        workers: str | Sequence[str] = (),
        evaluator: str | Sequence[str] = (),
    ) -> Self:
        """Makes a spec from "host:port" lists.

        Args:
            chief: The chief's address.
            ps: The parameter servers' addresses, a sequence or comma-separated.
            workers: The workers' addresses, likewise.
            evaluator: The evaluator's address, if any.

        Raises:
            ValueError: If an address is malformed or used twice, or there is no chief.
        """
        given = {Role.CHIEF: chief, Role.PS: ps, Role.WORKER: workers, Role.EVALUATOR: evaluator}
        return cls._from_jobs({role: _split_hosts(hosts) for role, hosts in given.items()})

    @classmethod
    def from_cluster_def(cls, cluster_def: tf.train.ClusterDef) -> Self:
        """Makes a spec from TensorFlow's own description.

        Raises:
            ValueError: If an address is malformed or used twice, a role is unknown, task indices
                have a gap, or there is no chief.
        """
        return cls._from_jobs({job.name: dict(job.tasks) for job in cluster_def.job})

    def to_cluster_def(self) -> tf.train.ClusterDef:
        """Returns the spec as a `ClusterDef`, the evaluator included if it has an address."""
        jobs = {role: dict(enumerate(self.addresses(role))) for role in Role}
        return _make_cluster_def({role: tasks for role, tasks in jobs.items() if tasks})

    @classmethod
    def from_tf_config(cls, text: str) -> tuple[Self, Task]:
        """Reads the `TF_CONFIG` environment variable.

        Args:
            text: A JSON object with "cluster" (role -> addresses) and "task" (type, index). An
                evaluator need not be listed in "cluster".

        Returns:
            The cluster, and the task that this process is.

        Raises:
            ValueError: If anything in it is malformed, missing, or used twice.
        """
        config = _load_object(text)
        spec = cls._from_jobs(_expect_object(config, "cluster"))
        task = _parse_tf_config_task(_expect_object(config, "task"))
        if task != Task(Role.EVALUATOR, 0):
            spec.address_of(task)
        return spec, task

    def to_tf_config(self, task: Task) -> str:
        """Returns the `TF_CONFIG` of `task`, as JSON.

        Raises:
            ValueError: If the cluster has no such task.
        """
        if task != Task(Role.EVALUATOR, 0):
            self.address_of(task)
        cluster = {str(role): list(self.addresses(role)) for role in Role if self.addresses(role)}
        return json.dumps(
            {"cluster": cluster, "task": {"type": str(task.role), "index": task.index}}
        )

    @classmethod
    def _from_jobs(cls, jobs: Mapping[str, object]) -> Self:
        lists: dict[Role, tuple[str, ...]] = {}
        for name, tasks in jobs.items():
            role = Role.parse(name)
            if role in lists:
                raise ValueError(f"role {role} is given twice: 'master' is another word for chief")
            lists[role] = _read_tasks(role, tasks)
        chief = _at_most_one(Role.CHIEF, lists)
        if chief is None:
            raise ValueError(
                f"the cluster has no chief, only {sorted(map(str, jobs))}: "
                "add \"chief\": ['host:port']"
            )
        evaluator = _at_most_one(Role.EVALUATOR, lists)
        return cls(chief, lists.get(Role.PS, ()), lists.get(Role.WORKER, ()), evaluator)


def _parse_index(index: object, what: str) -> int:
    # bool is an int to Python, but {"index": true} is a mistake.
    if isinstance(index, int) and not isinstance(index, bool) and index >= 0:
        return index
    if isinstance(index, str) and index.isascii() and index.isdecimal():
        return int(index)
    raise ValueError(f"{what} has the index {index!r}: use a whole number from 0")


def _check_addresses(tasks: Iterator[tuple[Task, str]] | Sequence[tuple[Task, str]]) -> None:
    seen: dict[Address, Task] = {}
    for task, text in tasks:
        address = parse_address(text, f"{task} address")
        if address in seen:
            raise ValueError(
                f"address '{address}' is used by {seen[address]} and {task}: "
                "give each task its own port"
            )
        seen[address] = task


def _make_cluster_def(jobs: Mapping[Role, Mapping[int, str]]) -> tf.train.ClusterDef:
    import tensorflow as tf

    cluster_def = tf.train.ClusterDef()
    for role, tasks in jobs.items():
        job = cluster_def.job.add(name=str(role))
        for index, address in tasks.items():
            job.tasks[index] = address
    return cluster_def


def _split_hosts(hosts: str | Sequence[str]) -> list[str]:
    if not isinstance(hosts, str):
        return list(hosts)
    return [part.strip() for part in hosts.split(",")] if hosts.strip() else []


def _read_tasks(role: Role, tasks: object) -> tuple[str, ...]:
    """Reads the addresses of one role from a list or from a map of task index to address."""
    if isinstance(tasks, Mapping):
        tasks = _close_ranks(role, tasks)
    if not isinstance(tasks, list | tuple):
        raise ValueError(f"the tasks of role {role} are {tasks!r}: give a list of 'host:port'")
    return tuple(
        validate_address(text, f"{role}:{index} address") for index, text in enumerate(tasks)
    )


def _close_ranks(role: Role, tasks: Mapping[Any, object]) -> list[object]:
    by_index: dict[int, object] = {}
    for key, text in tasks.items():
        index = _parse_index(key, f"role {role}")
        if index in by_index:
            raise ValueError(f"role {role} gives the index {index} twice: number its tasks 0, 1, 2")
        by_index[index] = text
    missing = sorted(set(range(len(tasks))) - set(by_index))
    if missing:
        raise ValueError(
            f"role {role} has the task indices {sorted(by_index)}, but no {missing[0]}: "
            "number its tasks 0, 1, 2, ... without a gap"
        )
    return [by_index[index] for index in range(len(tasks))]


def _at_most_one(role: Role, lists: Mapping[Role, tuple[str, ...]]) -> str | None:
    addresses = lists.get(role, ())
    if len(addresses) > 1:
        raise ValueError(f"the cluster has {len(addresses)} tasks of role {role}: give one")
    return addresses[0] if addresses else None


def _load_object(text: str) -> Mapping[str, object]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ValueError(f"TF_CONFIG {text!r} is no JSON ({error}): write {_EXAMPLE}") from error
    if not isinstance(config, dict):
        raise ValueError(f"TF_CONFIG {text!r} is no JSON object: write {_EXAMPLE}")
    return config


def _expect_object(config: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = config.get(key)
    if not isinstance(value, dict):
        raise ValueError(f"TF_CONFIG has {key!r} = {value!r}, not an object: write {_EXAMPLE}")
    return value


def _parse_tf_config_task(task: Mapping[str, object]) -> Task:
    for key in ("type", "index"):
        if key not in task:
            raise ValueError(f"TF_CONFIG's task {dict(task)!r} has no {key!r}: write {_EXAMPLE}")
    return Task(Role.parse(task["type"]), _parse_index(task["index"], "TF_CONFIG's task"))
