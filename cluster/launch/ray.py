"""Launches the processes of a job on a Ray cluster, each on the node that Ray finds for it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from typing import Any

from ...errors import UsageError
from ...reasons import reason_of
from ..address import parse_address
from .interface import ProcessSpec
from .ray_process import ProcessActor, RayProcess

# The smallest object store Ray takes; nothing of ours goes through it.
_OBJECT_STORE_BYTES = 80 * 1024 * 1024
_CONNECT_SECS = 5.0


class RayLauncher:
    """Starts processes on the nodes of a Ray cluster.

    Args:
        address: Of a running cluster, as `ray.init` takes it; None starts one on this host, for
            this job alone, and stops it in `close`.
        working_dir: Sent to the nodes of a running cluster, so that a model given as a file is
            found there; None sends nothing.

    Raises:
        UsageError: No cluster answers at the address.
    """

    def __init__(self, address: str | None = None, working_dir: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self._ray = ray
        self._embedded = address is None
        self._temporary: str | None = None
        self._started: list[RayProcess] = []
        self._newest: dict[str, RayProcess] = {}
        before = _signal_handlers()
        try:
            self._connect(address, working_dir)
        finally:
            _restore(before)  # Ray takes SIGTERM for itself.
        self._actor_class = ray.remote(num_cpus=0 if self._embedded else 1)(ProcessActor)

    def _connect(self, address: str | None, working_dir: str | None) -> None:
        common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            # A short path: Ray puts Unix sockets below it.
            self._temporary = tempfile.mkdtemp(prefix="paramserve-ray-")
            self._ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                _temp_dir=self._temporary,
                **common,
            )
            return
        _check_reachable(address)
        if working_dir is not None:
            common["runtime_env"] = {"working_dir": working_dir}
        try:
            self._ray.init(address=address, **common)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _no_cluster(address, error) from error

    def start(self, spec: ProcessSpec) -> RayProcess:
        """Starts a process: where the one before it of that name was, or on a node with room.

        Returns at once; Ray may look for such a node for as long as the job lasts.
        """
        before = self._newest.get(spec.name)
        # Its actor has TensorFlow loaded, and the address is still the same.
        is_there = before is not None and not before.is_lost
        actor = before.actor if before is not None and is_there else self._create_actor(spec)
        self._newest[spec.name] = process = RayProcess(spec, actor, self._ray)
        self._started.append(process)
        return process

    def _create_actor(self, spec: ProcessSpec) -> Any:
        options: dict[str, Any] = {"scheduling_strategy": "SPREAD", "max_restarts": 0}
        if spec.gpus:
            options["num_gpus"] = spec.gpus
        return self._actor_class.options(**options).remote()

    def close(self) -> None:
        """Kills what still runs, leaves the cluster, and stops one that was this job's own."""
        for process in self._started:
            process.end()
        self._ray.shutdown()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    try:
        peer = parse_address(address.removeprefix("ray://"))
    except ValueError:
        return  # "auto", which Ray resolves at once.
    try:
        socket.create_connection((peer.host, peer.port), timeout=_CONNECT_SECS).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> UsageError:
    return UsageError(
        f"--ray-address {address!r}: no Ray cluster answers ({reason_of(error)}); start one with "
        "`ray start --head`, or leave the option out for one of this job's own"
    )


def _signal_handlers() -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}


def _restore(handlers: dict[int, Any]) -> None:
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
