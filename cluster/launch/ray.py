"""Launches the processes of a job on a Ray cluster: each has an actor that starts and watches it.

A TensorFlow server cannot be stopped inside a process, so the role runs in a process of its own
beside the actor: it gets the actor's GPUs, it can be signalled, and it has an exit code.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from typing import Any

from ...errors import UsageError, first_line
from .child import ChildProcess
from .forked import ForkServer
from .interface import ProcessSpec

# The smallest object store Ray takes; nothing of ours goes through it.
_OBJECT_STORE_BYTES = 80 * 1024 * 1024
_CALL_SECS = 30.0
_CONNECT_SECS = 5.0
# What a lost actor counts as: its process died with it.
_NODE_LOST = -signal.SIGKILL


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
        self._handles: list[RayProcess] = []
        self._actors: dict[str, Any] = {}
        before = _signal_handlers()
        try:
            self._connect(address, working_dir)
        finally:
            _restore(before)  # Ray takes SIGTERM for itself.
        self._actor_class = ray.remote(num_cpus=0 if self._embedded else 1)(_ProcessActor)

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
        """Starts a process: where the one before it of that name was, or on a node with room."""
        actor = self._start_again(spec)
        if actor is None:
            actor = self._start_anywhere(spec)
        self._actors[spec.name] = actor
        handle = RayProcess(spec.name, actor, self._ray)
        self._handles.append(handle)
        return handle

    def _start_again(self, spec: ProcessSpec) -> Any:
        """The actor has TensorFlow loaded, and the address is still the same; None: it is lost."""
        actor = self._actors.get(spec.name)
        if actor is None:
            return None
        try:
            self._ray.get(actor.start.remote(spec), timeout=_CALL_SECS)
        except (self._ray.exceptions.RayError, self._ray.exceptions.GetTimeoutError):
            self._ray.kill(actor)
            return None
        return actor

    def _start_anywhere(self, spec: ProcessSpec) -> Any:
        options: dict[str, Any] = {"scheduling_strategy": "SPREAD", "max_restarts": 0}
        if spec.gpus:
            options["num_gpus"] = spec.gpus
        actor = self._actor_class.options(**options).remote()
        try:
            self._ray.get(actor.start.remote(spec), timeout=120)
        except self._ray.exceptions.GetTimeoutError as error:
            raise UsageError(
                f"Ray found no node for {spec.name} within 120 s: it needs {spec.gpus:g} GPUs and "
                f"1 CPU; the cluster has {self._ray.cluster_resources()}"
            ) from error
        return actor

    def close(self) -> None:
        """Kills what still runs, leaves the cluster, and stops one that was this job's own."""
        for handle in self._handles:
            handle.end()
        self._ray.shutdown()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


class RayProcess:
    """A process that an actor watches."""

    def __init__(self, name: str, actor: Any, ray: Any) -> None:
        self.name = name
        self._actor = actor
        self._ray = ray
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code; negative for a signal; None while the process runs."""
        if self._code is None:
            self._code = self._call("poll", default=_NODE_LOST)
        return self._code

    def send_signal(self, signum: int) -> None:
        """Sends a signal; a process that is gone is no error."""
        self._call("send_signal", signum)

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of its output; empty when its node is gone."""
        tail: list[str] = self._call("log_tail", lines, default=[])
        return tail

    def read_file(self, path: str) -> str | None:
        """A file on the host where the process runs; None when there is none."""
        content: str | None = self._call("read_file", path)
        return content

    def end(self) -> None:
        """Kills the process if it still runs, and its actor."""
        self._call("end")
        self._ray.kill(self._actor)

    def _call(self, method: str, *arguments: Any, default: Any = None) -> Any:
        try:
            return self._ray.get(
                getattr(self._actor, method).remote(*arguments), timeout=_CALL_SECS
            )
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.GetTimeoutError):
            return default


class _ProcessActor:
    """Runs on the node: owns one child process at a time."""

    def __init__(self) -> None:
        self._forks = ForkServer()
        self._child: ChildProcess | None = None

    def start(self, spec: ProcessSpec) -> None:
        import ray

        if self._child is not None:
            self._child.end()
        self._child = ChildProcess(spec, ray.util.get_node_ip_address(), self._forks)

    def poll(self) -> int | None:
        return self._owned().poll()

    def send_signal(self, signum: int) -> None:
        self._owned().send_signal(signum)

    def log_tail(self, lines: int) -> list[str]:
        return self._owned().log_tail(lines)

    def read_file(self, path: str) -> str | None:
        return self._owned().read_file(path)

    def end(self) -> None:
        self._forks.close()
        self._owned().end()

    def _owned(self) -> ChildProcess:
        if self._child is None:
            raise RuntimeError("start() comes first")
        return self._child


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", which Ray resolves at once.
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECS).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> UsageError:
    return UsageError(
        f"--ray-address {address!r}: no Ray cluster answers ({first_line(error)}); start one with "
        "`ray start --head`, or leave the option out for one of this job's own"
    )


def _signal_handlers() -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}


def _restore(handlers: dict[int, Any]) -> None:
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
