"""Every process serves its Prometheus metrics over HTTP."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from .access import Access, sent_token
from .address import join_address
from .binding import family, is_loopback, listen
from .tls import Tls
from .token import Token

# A client that stays silent for so long is disconnected.
_SILENCE_SECS = 10.0

log = logging.getLogger(__name__)
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def make_registry() -> CollectorRegistry:
    """Returns a registry of its own for this process, with the standard `process_*` metrics."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class MetricsServer:
    """Serves a registry at `http://host:port/metrics` until `stop`; with TLS at `https://`.

    Who reaches it from other hosts needs the token to read, as `Authorization: Bearer TOKEN`.

    Args:
        registry: Has the metrics.
        host: Host name or address of this process; it listens at no other address.
        port: TCP port; 0 takes a free one.
        access: Its TLS and token; without either it serves all who reach it.

    Raises:
        UsageError: The port is in use, or the host does not resolve here.

    Attributes:
        address: `host:port` under which other hosts reach it.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        host: str,
        port: int = 0,
        access: Access = Access(),  # noqa: B008  # It is frozen.
    ) -> None:
        self._app: Application = make_wsgi_app(registry)
        if access.token is not None and not is_loopback(host):
            self._app = _for_readers(self._app, access.token)
        self._tls = access.tls if access.tls is not None and access.tls.files.cert else None
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
        kind = {"address_family": family(address), "tls": self._tls}
        server_class = type("Server", (_Server,), kind)
        server: ThreadingWSGIServer = make_server(
            address, port, self._app, server_class, handler_class=_Handler
        )
        self._servers.append(server)
        return server.server_port


class _Server(ThreadingWSGIServer):
    request_queue_size = 64
    tls: Tls | None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serves a connection in its thread, where a slow handshake keeps no other waiting."""
        request.settimeout(_SILENCE_SECS)
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        with self.tls.http_context().wrap_socket(request, server_side=True) as connection:
            super().finish_request(connection, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores a client that breaks off, or whose certificate is refused."""
        log.debug("metrics were not served to %s", client_address, exc_info=True)


class _Handler(WSGIRequestHandler):
    """Handler without a log, which disconnects silent clients."""

    timeout = _SILENCE_SECS

    def log_message(self, *_: object) -> None:
        """Scrapes are no news."""


def _for_readers(app: Application, token: Token) -> Application:
    """Returns an application that serves those alone who may read."""

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if token.right_of(sent_token(environ.get("HTTP_AUTHORIZATION"))) is not None:
            return app(environ, start_response)
        headers = [("WWW-Authenticate", "Bearer"), ("Content-Type", "text/plain; charset=utf-8")]
        start_response("401 Unauthorized", headers)
        return [b"send the job's token to read as `Authorization: Bearer TOKEN`\n"]

    return serve
