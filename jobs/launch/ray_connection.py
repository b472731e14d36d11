"""The Ray cluster of a job: the program's own, a running one, or one started for the job."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from ...cluster.address import parse_address
from ...errors import UsageError
from ...reasons import reason_of
from .model_folder import survey
from .temporary import TemporaryFolder

# The smallest object store that Ray accepts; ours is not used.
_OBJECT_STORE_BYTES = 80 * 1024 * 1024
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
_CONNECT_SECS = 5.0
_OPTION = "--ray-address"
_VARIABLE = "RAY_ADDRESS"
# Set by Ray for the driver of a submitted job.
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"

_lock = threading.Lock()
# The connection of this module, for all jobs of the process at a time.
_connected: RayConnection | None = None


class RayConnection:
    """A connection to Ray. A connection of the program itself is used, and never shut down.

    Args:
        address: Address of a running cluster, in the form of `ray.init`; "local" starts one; None
            takes the program's own, that of `RAY_ADDRESS`, or starts one.
        folder: Folder of the model's file; None for a module.

    Attributes:
        ray: The connected module.
        is_local: True if the cluster was started by this process, for this host alone.
        is_one_host: True if no other host has joined it.

    Raises:
        UsageError: No cluster answers at the address, or the program is connected to another.
    """

    def __init__(self, address: str | None, folder: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self.ray = ray
        self.users = 0
        self._temporary: TemporaryFolder | None = None
        self._is_programs = ray.is_initialized()
        self._sent: str | None = None
        if self._is_programs:
            self.check(address)
        else:
            before = _signal_handlers()
            try:
                self._connect(address, folder)
            finally:
                _restore(before)  # Ray takes SIGTERM for itself.
        self.is_local = self._temporary is not None or _is_head(ray)
        self.is_one_host = self.is_local and _is_all_here(ray)

    def reference(self, model: str) -> str:
        """Returns a reference to the model as the processes on the nodes find it."""
        target, _, function = model.rpartition(":")
        file = Path(target).resolve()
        if not file.is_file():
            return model
        if str(file.parent) == self._sent:  # Its folder is the current one there.
            return f"{file.name}:{function}"
        if _has_sent_files(self.ray) and file.is_relative_to(Path.cwd()):
            return f"{file.relative_to(Path.cwd())}:{function}"
        return f"{file}:{function}"

    def shut_down(self) -> None:
        """Leaves a cluster that the program has not joined itself."""
        if not self._is_programs:
            self.ray.shutdown()
        if self._temporary is not None:
            self._temporary.remove()

    def check(self, address: str | None) -> None:
        """Refuses an address of another cluster than the connected one.

        Raises:
            UsageError: A program can be connected to one cluster only.
        """
        if self.ray.util.client.ray.is_connected():
            raise _no_client("the program's ray:// connection")
        connected = str(self.ray.get_runtime_context().gcs_address)
        own = "local" if self._temporary else connected
        if address not in (
            None,
            "auto",
            own,
            connected,
            f"localhost:{parse_address(connected).port}",
        ):
            raise UsageError(
                f"{_OPTION} {address!r}: this program is connected to the Ray cluster at "
                f"{connected} already; leave the address out, or call ray.shutdown() first"
            )

    def _connect(self, option: str | None, folder: str | None) -> None:
        address = option or os.environ.get(_VARIABLE) or "local"
        if address == "local":
            self._start_own()
            return
        named = f"{_OPTION if option else _VARIABLE} {address!r}"
        _check_reachable(address, named)
        to_send = None if folder is None or _is_submitted_with_files() else survey(folder)
        runtime_env = None
        if to_send is not None and not to_send.excess:
            self._sent = to_send.path
            runtime_env = {"working_dir": to_send.path, "excludes": list(to_send.excludes)}
        try:
            self.ray.init(address=address, runtime_env=runtime_env, **_QUIET)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _no_cluster(named, error) from error
        if to_send is not None and to_send.excess and not _is_all_here(self.ray):
            self.ray.shutdown()
            raise UsageError(
                f"the folder of the model, {to_send.path}, would be sent to the nodes of {named}, "
                f"and has {to_send.excess}: put the model's files into a folder of their own"
            )

    def _start_own(self) -> None:
        # A short path: Ray puts Unix sockets below it.
        self._temporary = TemporaryFolder("ray")
        try:
            self.ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                _temp_dir=self._temporary.path,
                **_QUIET,
            )
        except BaseException:
            self._temporary.remove()
            raise


def connect(address: str | None, folder: str | None) -> RayConnection:
    """Returns a connection for one more job; arguments as of `RayConnection`."""
    global _connected
    with _lock:
        if _connected is None:
            _connected = RayConnection(address, folder)
        else:
            _connected.check(address)
        _connected.users += 1
        return _connected


def disconnect(connection: RayConnection) -> None:
    """Ends the use by one job; the last one closes a connection that was opened for jobs alone."""
    global _connected
    with _lock:
        connection.users -= 1
        if not connection.users:
            connection.shut_down()
            _connected = None


def _is_head(ray: Any) -> bool:
    """Returns whether this process has started the cluster, as a program's `ray.init()` does."""
    node = getattr(ray._private.worker, "_global_node", None)
    return node is not None and bool(node.is_head())


def _has_sent_files(ray: Any) -> bool:
    """Returns whether the program has sent a folder to the nodes."""
    return bool(ray.get_runtime_context().runtime_env.get("working_dir"))


def _is_all_here(ray: Any) -> bool:
    """Returns whether the cluster has this host alone."""
    here = ray.util.get_node_ip_address()
    return all(node["NodeManagerAddress"] == here for node in ray.nodes() if node["Alive"])


def _is_submitted_with_files() -> bool:
    """Returns whether Ray itself has sent files: then another folder cannot be sent."""
    job = json.loads(os.environ.get(_SUBMITTED) or "{}")
    return bool((job.get("runtime_env") or {}).get("working_dir"))


def _check_reachable(address: str, named: str) -> None:
    """Checks the address first, because Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise _no_client(named)
    if address.startswith(("http://", "https://")):
        raise UsageError(
            f"{named} is of a dashboard, which takes whole programs: run this command by `ray job "
            f"submit --address {address} -- paramserve run ...`, or give {_OPTION} HOST:6379"
        )
    try:
        peer = parse_address(address)
    except ValueError:
        return  # "auto", which Ray resolves at once.
    try:
        socket.create_connection((peer.host, peer.port), timeout=_CONNECT_SECS).close()
    except OSError as error:
        raise _no_cluster(named, error) from error


def _no_client(named: str) -> UsageError:
    return UsageError(
        f"{named}: a job has to run inside the cluster, where its processes and log directory can "
        f"be reached: on a node of it give {_OPTION} HOST:6379, or from outside submit the program "
        "with `ray job submit -- python ...`"
    )


def _no_cluster(named: str, error: Exception) -> UsageError:
    return UsageError(
        f"{named}: no Ray cluster answers ({reason_of(error)}); start one with `ray start "
        f"--head`, or give {_OPTION} local for one of this job's own. A cluster that wants a token "
        "answers with RAY_AUTH_MODE=token only"
    )


def _signal_handlers() -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}


def _restore(handlers: dict[int, Any]) -> None:
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
