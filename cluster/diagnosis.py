"""The reason why no call gets through to a chief, as far as a connection shows it."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime

from ..errors import UsageError
from .access import Access
from .address import parse_address
from .tls import Tls

_CONNECT_SECS = 2.0
# The chief's first words, or its refusal of this process's certificate.
_ANSWER_SECS = 1.0
_RENEW = (
    "put a new one in its place, for example by `paramserve certs`; it is read without a restart"
)


def diagnose(address: str, access: Access) -> str | None:
    """Returns why a chief that listens cannot be called, and the remedy; None: nothing is wrong.

    Takes a few seconds at most. A chief that does not listen is no case of this.

    Args:
        address: `host:port` of the chief.
        access: What the calls are made with.
    """
    try:
        if access.tls is None:
            return _diagnose_plain(address)
        return _diagnose_tls(address, access.tls)
    except UsageError as error:
        return str(error)
    except OSError:
        return None


def _diagnose_plain(address: str) -> str | None:
    """Returns an error if the server takes part in a TLS handshake: then it requires TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with _connect(address) as plain, context.wrap_socket(plain):
            pass
    except (ssl.SSLError, ConnectionError, TimeoutError):
        return None
    return f"the chief at {address} serves over TLS: give --tls-ca, its certificate's authority"


def _diagnose_tls(address: str, tls: Tls) -> str | None:
    files = tls.files
    host = files.name or parse_address(address).host
    try:
        with (
            _connect(address) as plain,
            tls.client_context().wrap_socket(plain, server_hostname=host) as connection,
        ):
            connection.settimeout(_ANSWER_SECS)
            if connection.recv(1):
                return None
    except ssl.SSLCertVerificationError as error:
        remedy = _remedy_of_server(error, host, files.ca)
        return f"the certificate of the chief at {address} is refused: {remedy}"
    except ssl.SSLError as error:
        if error.reason == "WRONG_VERSION_NUMBER":
            return (
                f"the chief at {address} serves without TLS: leave --tls-ca out, or start it with "
                "--tls-cert and --tls-key"
            )
        return f"the chief at {address} cannot be called over TLS: {error.reason or error}"
    except TimeoutError:
        return None
    # A gRPC server takes part in the handshake, and closes without giving its reason.
    return f"the chief at {address} {_remedy_of_client(tls)}"


def _remedy_of_client(tls: Tls) -> str:
    """Returns the remedy if a server that requires a certificate closed the connection."""
    cert = tls.contents().cert
    if cert is None:
        return "asks for a certificate: give --tls-cert and --tls-key"
    from cryptography import x509

    until = x509.load_pem_x509_certificate(cert).not_valid_after_utc
    if until < datetime.now(UTC):
        return (
            f"refuses this process's certificate, --tls-cert {tls.files.cert!r}, which has expired "
            f"on {until:%Y-%m-%d at %H:%M} UTC: {_RENEW}"
        )
    return (
        f"refuses this process's certificate, --tls-cert {tls.files.cert!r}: give one of the "
        "authority that the chief has as --tls-client-ca"
    )


def _remedy_of_server(error: ssl.SSLCertVerificationError, host: str, ca: str) -> str:
    said = error.verify_message
    if "expired" in said:
        return f"it has expired; at the chief's --tls-cert, {_RENEW}"
    if "mismatch" in said or "doesn't match" in said:
        return f"it is not for {host!r}: give --tls-name NAME, a name that it is for ({said})"
    return f"--tls-ca {ca!r} has not issued it: give that of the chief's authority ({said})"


def _connect(address: str) -> socket.socket:
    parsed = parse_address(address)
    return socket.create_connection((parsed.host, parsed.port), timeout=_CONNECT_SECS)
