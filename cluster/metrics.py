"""Every process serves its Prometheus metrics over HTTP."""

from __future__ import annotations

import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from .address import join_address
from .binding import family, listen

# A client that stays silent for so long is disconnected.
_SILENCE_SECS = 10.0


def make_registry() -> CollectorRegistry:
    """Returns a registry of its own for this process, with the standard `process_*` metrics."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class MetricsServer:
    """Serves a registry at `http://host:port/metrics` until `stop`.

    Args:
        registry: Has the metrics.
        host: Host name or address of this process; it listens at no other address.
        port: TCP port; 0 takes a free one.

    Raises:
        UsageError: The port is in use, or the host does not resolve here.

    Attributes:
        address: `host:port` under which other hosts reach it.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int = 0) -> None:
        self._app = make_wsgi_app(registry)
        self._servers: list[ThreadingWSGIServer] = []
        self.address = join_address(host, listen(host, port, self._bind, "--metrics-port"))
        self._threads = [
            threading.Thread(target=each.serve_forever, name="metrics", daemon=True)
            for each in self._servers
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stops serving and frees the port."""
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join(timeout=5)

    def _bind(self, address: str, port: int) -> int:
        server_class = type("Server", (_Server,), {"address_family": family(address)})
        server: ThreadingWSGIServer = make_server(
            address, port, self._app, server_class, handler_class=_Handler
        )
        self._servers.append(server)
        return server.server_port


class _Server(ThreadingWSGIServer):
    request_queue_size = 64


class _Handler(WSGIRequestHandler):
    """Handler without a log, which disconnects silent clients."""

    timeout = _SILENCE_SECS

    def log_message(self, *_: object) -> None:
        """Scrapes are no news."""
