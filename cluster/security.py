"""`SecurityOptions`: the callers allowed to use a job's services, and their connections."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Annotated

from ..errors import UsageError
from ..option import Option
from .access import Access
from .tls import Tls, TlsFiles
from .token import TOKEN_VARIABLE, find_token

PANEL = "Access to the job's services"


@dataclass(frozen=True, kw_only=True)
class SecurityOptions:
    """The callers allowed to use a job's services, and their connections.

    Attributes:
        token_file: File with the token of the job, or one with a right; None: that of the
            environment variable PARAMSERVE_TOKEN, or of the job's log directory.
        tls_cert: Certificate chain of this process, in PEM form.
        tls_key: Its private key.
        tls_ca: Authority of the chief's certificate.
        tls_client_ca: Authority of the certificates that servers require of clients; None: none.
        tls_name: Name on the chief's certificate, if it is not that of its address.
        insecure: Whether to serve other hosts without a token or TLS.

    Raises:
        UsageError: A file is missing beside another.
    """

    token_file: Annotated[
        str | None,
        Option(
            help=f"File of the job's token; default: {TOKEN_VARIABLE}, or the log directory's.",
            metavar="FILE",
            panel=PANEL,
        ),
    ] = None
    tls_cert: Annotated[
        str | None,
        Option(help="Certificate chain of this process, PEM.", metavar="FILE", panel=PANEL),
    ] = None
    tls_key: Annotated[
        str | None, Option(help="Private key of --tls-cert, PEM.", metavar="FILE", panel=PANEL)
    ] = None
    tls_ca: Annotated[
        str | None,
        Option(help="Authority of the chief's certificate, PEM.", metavar="FILE", panel=PANEL),
    ] = None
    tls_client_ca: Annotated[
        str | None,
        Option(
            help="Authority of the certificates that this process asks of callers, PEM.",
            metavar="FILE",
            panel=PANEL,
        ),
    ] = None
    tls_name: Annotated[
        str | None,
        Option(
            help="Name that the chief's certificate is for; default: the host of its address.",
            panel=PANEL,
        ),
    ] = None
    insecure: Annotated[
        bool,
        Option(help="Serve and call other hosts also without a token or TLS.", panel=PANEL),
    ] = False

    def __post_init__(self) -> None:
        for flag, value, needed, other in (
            ("--tls-cert", self.tls_cert, "--tls-key", self.tls_key),
            ("--tls-key", self.tls_key, "--tls-cert", self.tls_cert),
            ("--tls-cert", self.tls_cert, "--tls-ca", self.tls_ca),
            ("--tls-client-ca", self.tls_client_ca, "--tls-cert", self.tls_cert),
            ("--tls-name", self.tls_name, "--tls-ca", self.tls_ca),
        ):
            if value and not other:
                raise UsageError(f"{flag} {value!r} without {needed}: give both, or neither")

    def access(self, logdir: str | None = None) -> Access:
        """Returns the tokens and certificates for this process's calls and servers.

        Args:
            logdir: Log directory of a running job, which may have its token.

        Raises:
            UsageError: A file cannot be read, or has other contents.
        """
        return Access(find_token(self.token_file, logdir), self._tls(), self.insecure)

    def for_any_folder(self) -> SecurityOptions:
        """Returns the same for a process that may run in another folder, and gets its token."""
        return replace(
            self,
            token_file=None,
            tls_cert=_absolute(self.tls_cert),
            tls_key=_absolute(self.tls_key),
            tls_ca=_absolute(self.tls_ca),
            tls_client_ca=_absolute(self.tls_client_ca),
        )

    def _tls(self) -> Tls | None:
        if not self.tls_ca:
            return None
        return Tls(
            TlsFiles(self.tls_ca, self.tls_cert, self.tls_key, self.tls_client_ca, self.tls_name)
        )


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else None
