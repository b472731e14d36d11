"""Builds and binds the chief's gRPC server: membership, shards, status, health, reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from ...cluster.access import MAX_MESSAGE_BYTES
from ...cluster.address import join_address
from ...cluster.binding import listen
from ...cluster.tls import Tls
from ...protos import membership_pb2_grpc, shards_pb2_grpc, status_pb2_grpc
from .event_loop import EventLoop
from .membership_servicer import MembershipServicer
from .shards_servicer import ShardsServicer
from .status_servicer import StatusServicer

Interceptor: TypeAlias = "grpc.aio.ServerInterceptor[Any, Any]"

SERVICES = ("paramserve.Membership", "paramserve.Shards", "paramserve.Status")
# gRPC turns calls away at random when more than 1,000 of them wait to be begun; all tasks of a job
# come at once when a generation ends.
MAX_PENDING = 40_000
OPTIONS = (
    # Without the first one two chiefs could share a port and split the calls between them.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Finds out that the host of a caller is gone.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
)


class ControlServer:
    """The chief's gRPC server, on an event loop of its own: a call that waits costs no thread.

    Args:
        membership: Serves the job's tasks.
        status: Serves people and programs.
        port: The port; 0 takes a free one.
        shards: Serves the job's input; None: calls for it are answered as unimplemented.
        host: Host name or address of this process; it listens at no other address.
        tls: Of its calls; None: they are not encrypted.
        interceptors: Handle every call before its servicer does.
        on_beat: Called in the loop about four times a second with the seconds by which it is late.

    Raises:
        UsageError: The port is in use, or the host does not resolve here.

    Attributes:
        port: The port it listens on.
    """

    def __init__(
        self,
        membership: MembershipServicer,
        status: StatusServicer,
        port: int,
        shards: ShardsServicer | None = None,
        host: str = "127.0.0.1",
        *,
        tls: Tls | None = None,
        interceptors: Sequence[Interceptor] = (),
        on_beat: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._loop = EventLoop("control", on_beat)
        self._membership = membership
        self._status = status
        self._shards = shards
        self._tls = tls
        self._health = HealthServicer()
        try:
            self.port = self._loop.call(self._bind(host, port, interceptors))
        except BaseException:
            self._loop.stop()
            raise

    def start(self) -> None:
        """Serves, and reports that on the health service."""
        self._loop.call(self._start())

    def stop(self, grace_secs: float = 2.0) -> None:
        """Reports NOT_SERVING on the health service, then stops."""
        if self._loop.is_running:
            self._loop.call(self._stop(grace_secs))
            self._loop.stop()

    async def _bind(self, host: str, port: int, interceptors: Sequence[Interceptor]) -> int:
        """Makes the server and returns the port that it has taken."""
        self._server = grpc.aio.server(options=OPTIONS, interceptors=interceptors)
        membership_pb2_grpc.add_MembershipServicer_to_server(self._membership, self._server)
        status_pb2_grpc.add_StatusServicer_to_server(self._status, self._server)
        if self._shards is not None:
            shards_pb2_grpc.add_ShardsServicer_to_server(self._shards, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        return listen(host, port, self._listen)

    async def _start(self) -> None:
        await self._server.start()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def _listen(self, address: str, port: int) -> int:
        try:
            if self._tls is None:
                return self._server.add_insecure_port(join_address(address, port))
            credentials = self._tls.server_credentials()
            return self._server.add_secure_port(join_address(address, port), credentials)
        except RuntimeError:
            return 0

    async def _stop(self, grace_secs: float) -> None:
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.ensure_future(self._server.stop(grace_secs))
        await asyncio.sleep(0)  # Now it takes no further calls.
        self._membership.end_streams()
        await stopping
