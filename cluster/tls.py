"""TLS of a process: its certificate files, read again when they change."""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from ..errors import UsageError

log = logging.getLogger(__name__)

# How often the files are looked at, at most.
_LOOK_SECS = 1.0


@dataclass(frozen=True)
class TlsFiles:
    """The TLS files of a process, in PEM form.

    Attributes:
        ca: Certificates of the authority by which it knows the chief.
        cert: Its own certificate chain; None: it serves nothing, and presents none.
        key: The private key of `cert`.
        client_ca: Certificates of the authority by which its servers know clients; None: they ask
            for no certificate.
        name: Name on the chief's certificate, if it is not the host of its address.
    """

    ca: str
    cert: str | None = None
    key: str | None = None
    client_ca: str | None = None
    name: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that there are."""
        return tuple(each for each in (self.ca, self.cert, self.key, self.client_ca) if each)


@dataclass(frozen=True)
class TlsContents:
    """The contents of TLS files at one time, which fit together."""

    ca: bytes
    cert: bytes | None
    key: bytes | None = field(repr=False)
    client_ca: bytes | None


class Tls:
    """The TLS of a process.

    Args:
        files: They are read at once, and again when they have changed; files that do not fit
            together then are left alone until they do.

    Raises:
        UsageError: A file cannot be read, or has no certificate, or no key of the certificate.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._lock = threading.Lock()
        self._stamp: object = None
        self._looked = 0.0
        self._contents = self._load()

    def contents(self) -> TlsContents:
        """Returns the newest contents; the same object while they do not change."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked >= _LOOK_SECS:
                self._looked = now
                self._refresh()
            return self._contents

    def server_credentials(self) -> grpc.ServerCredentials:
        """Returns the credentials of a gRPC server, which uses the newest contents."""
        used = self._server_contents()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal used
            newest = self.contents()
            if newest is used:
                return None
            used = newest
            return _configuration(newest)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(used),
            fetch,  # type: ignore[arg-type]  # The stubs leave None out.
            require_client_authentication=used.client_ca is not None,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Returns the credentials of a channel, with the contents of now."""
        contents = self.contents()
        return grpc.ssl_channel_credentials(contents.ca, contents.key, contents.cert)

    def http_context(self) -> ssl.SSLContext:
        """Returns the context of an HTTPS server, with the files of now."""
        self._server_contents()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        assert self.files.cert is not None
        context.load_cert_chain(self.files.cert, self.files.key)
        if self.files.client_ca:
            context.load_verify_locations(self.files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """Returns the context of a client that makes a connection as a channel does."""
        context = ssl.create_default_context(cafile=self.files.ca)
        context.set_alpn_protocols(["h2"])
        if self.files.cert:
            context.load_cert_chain(self.files.cert, self.files.key)
        return context

    def _server_contents(self) -> TlsContents:
        contents = self.contents()
        if contents.cert is None:
            raise UsageError("serving over TLS needs a certificate: give --tls-cert and --tls-key")
        return contents

    def _refresh(self) -> None:
        try:
            if (stamp := self._stamp_of_files()) != self._stamp:
                self._stamp = stamp  # Refused files are not tried again unchanged.
                self._contents = self._load()
                log.info("certificates were read again: %s", ", ".join(self.files.paths))
        except (OSError, UsageError) as error:
            log.warning("certificates stay as they were: %s", error)

    def _load(self) -> TlsContents:
        files = self.files
        _check(files)
        stamp = self._stamp_of_files()
        contents = TlsContents(
            Path(files.ca).read_bytes(),
            Path(files.cert).read_bytes() if files.cert else None,
            Path(files.key).read_bytes() if files.key else None,
            Path(files.client_ca).read_bytes() if files.client_ca else None,
        )
        _check(files)
        if stamp != self._stamp_of_files():
            raise UsageError("the TLS files changed while they were read: write them at once")
        self._stamp, self._looked = stamp, time.monotonic()
        return contents

    def _stamp_of_files(self) -> object:
        found = (os.stat(path) for path in self.files.paths)
        return [(each.st_mtime_ns, each.st_ino, each.st_size) for each in found]


def _configuration(contents: TlsContents) -> grpc.ServerCertificateConfiguration:
    assert contents.key is not None
    assert contents.cert is not None
    pair = (contents.key, contents.cert)
    return grpc.ssl_server_certificate_configuration([pair], contents.client_ca)


def _check(files: TlsFiles) -> None:
    """Refuses files that TLS would fail with.

    Raises:
        UsageError: The message names the option and the file.
    """
    for option, path in (("--tls-ca", files.ca), ("--tls-client-ca", files.client_ca)):
        if not path:
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except OSError as error:
            raise UsageError(_describe(option, path, error)) from error
    if not files.cert:
        return
    for path in (files.cert, files.key):
        if not os.access(str(path), os.R_OK):
            option = "--tls-cert" if path == files.cert else "--tls-key"
            raise UsageError(f"{option} {path!r} cannot be read: is it there, and yours?")
    try:
        # Without a password, OpenSSL would prompt for that of an encrypted key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.cert, files.key, "")
    except OSError as error:
        raise UsageError(
            f"--tls-cert {files.cert!r} with --tls-key {files.key!r}: expected a certificate and "
            f"its own private key, in PEM form and without a password ({_reason(error)})"
        ) from error


def _describe(option: str, path: str, error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"{option} {path!r} has no certificate in PEM form ({_reason(error)})"
    return f"{option} {path!r} cannot be read: {error.strerror}"


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)
