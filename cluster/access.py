"""`Access`: the token and TLS with which this process calls a job's services, and serves."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import grpc

from ..errors import UsageError
from .address import parse_address
from .binding import is_loopback
from .tls import Tls
from .token import TOKEN_VARIABLE, Right, Token

# The index of an input's files may be larger than gRPC's 4 MB.
MAX_MESSAGE_BYTES = 256 << 20
# A chief that comes up late is noticed at once instead of after gRPC's two minutes of back-off.
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
# Calls on a channel with former certificates may end by themselves for so long.
_FORMER_SECS = 5.0
_BEARER = "Bearer "


@dataclass(frozen=True)
class Access:
    """The token and TLS of this process; without either, as on loopback, all is open.

    Attributes:
        token: Of the job; None: calls carry none, and servers ask for none.
        tls: Of calls and servers; None: neither is encrypted.
        is_insecure: Whether to do without them also where other hosts can listen.
    """

    token: Token | None = None
    tls: Tls | None = None
    is_insecure: bool = False

    def check_host(self, host: str) -> None:
        """Refuses to serve other hosts without a token and TLS.

        Raises:
            UsageError: The host is not a loopback address, and there are not both.
        """
        if self.is_insecure or (self.token and self.tls) or is_loopback(host):
            return
        missing = [
            *([] if self.token else [f"a token (--token-file, or {TOKEN_VARIABLE})"]),
            *([] if self.tls else ["TLS (--tls-cert, --tls-key and --tls-ca)"]),
        ]
        raise UsageError(
            f"--host {host}: other hosts reach this process, so it needs {' and '.join(missing)}; "
            "`paramserve certs` makes both. To serve all who reach it, give --insecure"
        )

    def open_channel(self, address: str, *rights: Right) -> grpc.Channel:
        """Returns a channel to a service of this project; connects when first used.

        Args:
            address: `host:port`.
            *rights: Of them the first that the token has is that of its calls.

        Raises:
            ValueError: The address is malformed.
            UsageError: The token has none of the rights, or would cross unencrypted.
        """
        host = parse_address(address, "chief address").host
        token = self.token.for_first(rights) if self.token else None
        if self.tls is not None:
            return grpc.intercept_channel(_RenewedChannel(address, self.tls), _Tokens(token))
        if token and not self.is_insecure and not _is_surely_loopback(host):
            raise UsageError(
                f"the token would go to {address} unencrypted: give --tls-ca, the authority of "
                "the job's certificates, or --insecure"
            )
        channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        return grpc.intercept_channel(channel, _Tokens(token)) if token else channel


def sent_token(header: str | bytes | None) -> str:
    """Returns the token of an `authorization` header; "" without one."""
    text = header if isinstance(header, str) else ""
    return text.removeprefix(_BEARER).strip() if text.startswith(_BEARER) else ""


def _is_surely_loopback(host: str) -> bool:
    try:
        return is_loopback(host)
    except UsageError:
        return False


class _Details(grpc.ClientCallDetails):
    """The details of a call, with more metadata."""

    def __init__(self, former: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self.method, self.timeout = former.method, former.timeout
        self.metadata = metadata
        self.credentials, self.wait_for_ready = former.credentials, former.wait_for_ready
        self.compression = former.compression


class _Tokens(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]  # So only in the stubs.
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Adds a token to each call, if there is one."""

    def __init__(self, token: str | None) -> None:
        self._headers = (("authorization", f"{_BEARER}{token}"),) if token else ()

    def _call(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), *self._headers)
        return continuation(_Details(details, metadata), request)

    intercept_unary_unary = intercept_unary_stream = _call  # type: ignore[assignment]
    intercept_stream_unary = intercept_stream_stream = _call  # type: ignore[assignment]


class _RenewedChannel(grpc.Channel):
    """A channel that is replaced, for calls to come, when the certificates have changed.

    An intercepted channel asks the one below for each call, so this one needs no callables that
    outlast a channel.
    """

    def __init__(self, address: str, tls: Tls) -> None:
        self._address = address
        self._tls = tls
        self._lock = threading.Lock()
        self._contents = tls.contents()
        self._channel = self._open()

    def _open(self) -> grpc.Channel:
        name = self._tls.files.name
        options = [*CHANNEL_OPTIONS, *([("grpc.ssl_target_name_override", name)] if name else [])]
        return grpc.secure_channel(self._address, self._tls.channel_credentials(), options=options)

    def _current(self) -> grpc.Channel:
        with self._lock:
            contents = self._tls.contents()
            if contents is not self._contents:
                former, self._contents, self._channel = self._channel, contents, self._open()
                timer = threading.Timer(_FORMER_SECS, former.close)
                timer.daemon = True
                timer.start()
            return self._channel

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        """Works as in `grpc.Channel`, like all that follows, on the present channel."""
        self._current().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        """Ends a subscription."""
        self._current().unsubscribe(callback)

    def unary_unary(self, *arguments: Any, **keywords: Any) -> Any:
        """Returns a method of one request and one answer."""
        return self._current().unary_unary(*arguments, **keywords)

    def unary_stream(self, *arguments: Any, **keywords: Any) -> Any:
        """Returns a method of one request and several answers."""
        return self._current().unary_stream(*arguments, **keywords)

    def stream_unary(self, *arguments: Any, **keywords: Any) -> Any:
        """Returns a method of several requests and one answer."""
        return self._current().stream_unary(*arguments, **keywords)

    def stream_stream(self, *arguments: Any, **keywords: Any) -> Any:
        """Returns a method of several requests and answers."""
        return self._current().stream_stream(*arguments, **keywords)

    def close(self) -> None:
        """Closes the channel; calls on it end."""
        with self._lock:
            self._channel.close()

    def __enter__(self) -> _RenewedChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
