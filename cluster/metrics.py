"""Every process serves its Prometheus metrics over HTTP."""

from __future__ import annotations

from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from ..errors import UsageError


def make_registry() -> CollectorRegistry:
    """A registry of its own for this process, with the standard `process_*` metrics."""
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
            server, self._thread = start_http_server(port, addr="0.0.0.0", registry=registry)
        except OSError as error:
            raise UsageError(
                f"--metrics-port {port} is in use ({error.strerror}): "
                "give another, or 0 for a free one"
            ) from error
        self._server: WSGIServer = server
        self.address = f"{host}:{server.server_port}"

    def stop(self) -> None:
        """Stops serving and frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
