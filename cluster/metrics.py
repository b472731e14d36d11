"""Every process serves its Prometheus metrics over HTTP."""

from __future__ import annotations

import socket
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from ..errors import UsageError
from .address import join_address


def make_registry() -> CollectorRegistry:
    """Returns a registry of its own for this process, with the standard `process_*` metrics."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class MetricsServer:
    """Serves a registry at `http://host:port/metrics` until `stop`.

    Attributes:
        address: `host:port` under which other hosts reach it.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int = 0) -> None:
        try:
            server, self._thread = start_http_server(port, addr=_any_address(), registry=registry)
        except OSError as error:
            raise UsageError(
                f"--metrics-port {port} is in use ({error.strerror}): "
                "give another, or 0 for a free one"
            ) from error
        self._server: WSGIServer = server
        self.address = join_address(host, server.server_port)

    def stop(self) -> None:
        """Stops serving and frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def _any_address() -> str:
    """Returns the wildcard address of this host: of both kinds, where one socket can serve both."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            is_dual = not probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return "0.0.0.0"
    return "::" if is_dual else "0.0.0.0"
