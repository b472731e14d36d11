"""The systems that can be measured, by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError
from .task import MODES, Mode
from .variants import VARIANTS
from .workloads.workload import Workload

_PROGRAMS = "paramserve.benchmarks.programs"
BOTH_WAYS = frozenset(MODES)


@dataclass(frozen=True)
class System:
    """One way to train.

    Attributes:
        name: Its name on the command line.
        about: One line for `--list`.
        program: Full name of the module whose `run(task)` is one of its processes.
        modes: The modes that it has.
        roles: Roles of its processes in the order in which they start. There are as many "ps" and
            "worker" as asked for, and one of any other.
        reader: The role whose process 0 knows the global step.
        trainers: Roles whose processes do steps of their own.
        sums: Whether the global step of async training is the sum of all trainers' steps.
        fork: Whether its processes may be forked from one that has imported TensorFlow.
        package: What has to be installed, or None.
        one_host: Whether it runs on one host only.
        one_ps: Whether it has only one parameter server.
        transfers: Whether it can move bytes without a model.
        tables: Whether it can train tables without moving all of their rows.
        options: Options of its program.
    """

    name: str
    about: str
    program: str
    modes: frozenset[Mode] = BOTH_WAYS
    roles: tuple[str, ...] = ("ps", "worker")
    reader: str = "worker"
    trainers: tuple[str, ...] = ("worker",)
    sums: bool = False
    fork: bool = True
    package: str | None = None
    one_host: bool = False
    one_ps: bool = False
    transfers: bool = False
    tables: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    def task_counts(self, workers: int, ps: int) -> dict[str, int]:
        """Returns the number of processes of each role."""
        counts = {"ps": ps, "worker": workers}
        return {role: counts.get(role, 1) for role in self.roles}

    def why_not(self, workload: Workload, mode: Mode, ps: int, single_host: bool) -> str | None:
        """Returns the reason why it cannot be measured so, or None if it can."""
        if mode not in self.modes:
            return f"it has no {mode} mode"
        if workload.transfer and not self.transfers:
            return "it trains models only"
        if workload.transfer and mode == "sync":
            return "a transfer without a model has no sync mode"
        if workload.sparse and not self.tables:
            return "it would move whole tables in each step"
        if ps > 1 and self.one_ps:
            return "its pattern has one parameter server"
        if self.one_host and not single_host:
            return "it is set up for one host here"
        if self.package is not None and importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed: pip install 'paramserve[bench]'"
        return None


def _ours(name: str, options: Mapping[str, Any]) -> System:
    shards = bool(options.get("ps_on_workers"))
    about = ", ".join(f"{key}={value}" for key, value in options.items()) or "with its defaults"
    roles = ("worker",) if shards else ("ps", "worker")
    return System(
        name,
        f"this library: {about}",
        f"{_PROGRAMS}.ours",
        roles=roles,
        transfers=True,
        options=options,
    )


def all_systems() -> dict[str, System]:
    """Returns every system by its name, ours first."""
    peers = [
        System(
            "stock",
            "tf.compat.v1's own session and optimizers",
            f"{_PROGRAMS}.stock",
            transfers=True,
        ),
        System(
            "psstrategy",
            "tf.distribute's ParameterServerStrategy with a ClusterCoordinator",
            f"{_PROGRAMS}.psstrategy",
            modes=frozenset({"async"}),
            roles=("ps", "worker", "coordinator"),
            reader="coordinator",
            trainers=("coordinator",),
        ),
        System(
            "ray",
            "Ray's documented parameter server pattern: actors, gradients by TensorFlow",
            f"{_PROGRAMS}.ray_servers",
            roles=("driver",),
            reader="driver",
            trainers=("driver",),
            fork=False,
            package="ray",
            one_host=True,
            one_ps=True,
            tables=False,
        ),
        System(
            "ddp",
            "PyTorch's DistributedDataParallel on gloo",
            f"{_PROGRAMS}.ddp",
            modes=frozenset({"sync"}),
            roles=("worker",),
            fork=False,
            package="torch",
        ),
        System(
            "tcp",
            "limit: the same bytes through raw sockets, pull before push, nothing computed",
            f"{_PROGRAMS}.tcp",
            sums=True,
            transfers=True,
            tables=False,
        ),
        System(
            "tcp-duplex",
            "limit: the same bytes through raw sockets, both ways at once",
            f"{_PROGRAMS}.tcp",
            sums=True,
            transfers=True,
            tables=False,
            options={"duplex": True},
        ),
        System(
            "local",
            "limit: the same model in one process, nothing distributed",
            f"{_PROGRAMS}.local",
            roles=("alone",),
            reader="alone",
            trainers=("alone",),
            transfers=True,
        ),
    ]
    ours = [_ours(name, options) for name, options in VARIANTS.items()]
    return {system.name: system for system in (*ours, *peers)}


def find_system(name: str) -> System:
    """Returns the system of that name.

    Raises:
        UsageError: There is none.
    """
    systems = all_systems()
    if name not in systems:
        raise UsageError(f"--system {name!r}: expected one of {', '.join(systems)}")
    return systems[name]
