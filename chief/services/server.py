"""Builds and binds the chief's gRPC server: membership, shards, status, health, reflection."""

from __future__ import annotations

from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ...cluster.access import MAX_MESSAGE_BYTES
from ...cluster.address import join_address
from ...cluster.binding import listen
from ...protos import membership_pb2_grpc, shards_pb2_grpc, status_pb2_grpc
from .membership_servicer import MembershipServicer
from .shards_servicer import ShardsServicer
from .status_servicer import StatusServicer

SERVICES = ("paramserve.Membership", "paramserve.Shards", "paramserve.Status")
# Each task that waits to be ready, and each watcher of the status, holds one.
THREADS = 256
# Without the first one two chiefs could share a port and split the calls between them.
OPTIONS = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]


class ControlServer:
    """The chief's gRPC server.

    Args:
        membership: Serves the job's tasks.
        status: Serves people and programs.
        port: The port; 0 takes a free one.
        shards: Serves the job's input; None: calls for it are answered as unimplemented.
        host: Host name or address of this process; it listens at no other address.

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
    ) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(THREADS, "control"), options=OPTIONS)
        membership_pb2_grpc.add_MembershipServicer_to_server(membership, self._server)
        status_pb2_grpc.add_StatusServicer_to_server(status, self._server)
        if shards is not None:
            shards_pb2_grpc.add_ShardsServicer_to_server(shards, self._server)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.port = listen(host, port, self._bind)

    def start(self) -> None:
        """Serves, and says so on the health service."""
        self._server.start()
        for name in ("", *SERVICES):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_secs: float = 2.0) -> None:
        """Says on the health service that it is going, then goes."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_secs).wait(grace_secs + 1)

    def _bind(self, address: str, port: int) -> int:
        try:
            return self._server.add_insecure_port(join_address(address, port))
        except RuntimeError:
            return 0
