"""Launches the processes of a job on a Ray cluster, each on the node that Ray finds for it."""

from __future__ import annotations

from typing import Any

from ...cluster.address import LOOPBACK
from ...errors import UsageError
from .interface import ProcessSpec
from .ray_connection import connect, disconnect
from .ray_process import ProcessActor, RayProcess


class RayLauncher:
    """A launcher on the nodes of a Ray cluster.

    Args:
        address: Address of a running cluster, in the form of `ray.init`; "local" starts one for
            this job alone. None takes the program's connection, or the cluster of `RAY_ADDRESS`, or
            starts one.
        folder: Folder of the model's file, sent to the nodes of a running cluster; None sends
            nothing.

    Raises:
        UsageError: No cluster answers at the address.
    """

    def __init__(self, address: str | None = None, folder: str | None = None) -> None:
        self._connection = connect(address, folder)
        self._ray = self._connection.ray
        self._started: list[RayProcess] = []
        self._newest: dict[str, RayProcess] = {}
        # Where all share one host in any case, too few CPUs are no reason to wait.
        cpus = 0 if self._connection.is_local else 1
        self._host = LOOPBACK if self._connection.is_one_host else None
        self._actor_class = self._ray.remote(num_cpus=cpus)(ProcessActor)

    def reference(self, model: str) -> str:
        """Returns a reference to the model as the processes on the nodes find it."""
        return self._connection.reference(model)

    def start(self, spec: ProcessSpec) -> RayProcess:
        """Starts a process, on its former node if possible, or on a node with room.

        Returns at once; Ray may look for such a node for as long as the job lasts.
        """
        before = self._newest.get(spec.name)
        # Its actor has TensorFlow loaded, and the address is still the same.
        is_there = before is not None and not before.is_lost
        actor = before.actor if before is not None and is_there else self._create_actor(spec)
        if self._connection.is_local:
            self._check_gpus(spec)
        self._newest[spec.name] = process = RayProcess(spec, actor, self._ray, self._host)
        self._started.append(process)
        return process

    def _check_gpus(self, spec: ProcessSpec) -> None:
        """Refuses a request that this one host can never fulfil."""
        total = float(self._ray.cluster_resources().get("GPU", 0.0))
        taken = sum(each.gpus for name, each in self._newest.items() if name != spec.name)
        if spec.gpus > total - taken:
            raise UsageError(
                f"--gpus-per-worker {spec.gpus:g}: no GPU is left for {spec.name}: Ray counts "
                f"{total:g} on this host; ask for fewer, or give a cluster by --ray-address"
            )

    def _create_actor(self, spec: ProcessSpec) -> Any:
        options: dict[str, Any] = {"scheduling_strategy": "SPREAD", "max_restarts": 0}
        if spec.gpus:
            options["num_gpus"] = spec.gpus
        return self._actor_class.options(**options).remote()

    def close(self) -> None:
        """Kills all running processes, and leaves a cluster that the program did not join."""
        for process in self._started:
            process.end()
        disconnect(self._connection)
