"""`paramserve certs`: a private authority, certificates and a token for a test set-up."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..cluster.token import JOB_TOKEN, TOKENS_FOLDER, Token, write_tokens
from ..errors import UsageError
from . import arguments as args

if TYPE_CHECKING:
    import trustme

CA_FILE, CA_KEY_FILE = "ca.pem", "ca-key.pem"
CERT_FILE, KEY_FILE = "cert.pem", "key.pem"
_PUBLIC = 0o644


def certs(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Gets the files.")],
    hosts: Annotated[
        str,
        typer.Option(
            "--hosts", help="Names and addresses that the certificate is for, with commas."
        ),
    ] = "localhost,127.0.0.1,::1",
    days: Annotated[
        float, typer.Option("--days", help="Days for which the certificate is valid.")
    ] = 90.0,
    debug: args.Debug = False,
) -> None:
    """Makes a private authority, a certificate, and a job's token, for a test set-up.

    Run it again in the same DIR to replace the certificate by a new one of the same authority;
    running processes use it without a restart. In production, let your own authority issue them.
    """
    with args.ending_with_exit_code(debug):
        names = [each.strip().strip("[]") for each in hosts.split(",") if each.strip()]
        if not names:
            raise UsageError(f"--hosts {hosts!r}: expected names or addresses, with commas between")
        if not days > 0:
            raise UsageError(f"--days {days:g}: expected a positive number of days")
        try:
            make_certificates(directory, names, days)
            if not (directory / TOKENS_FOLDER / JOB_TOKEN).exists():
                write_tokens(directory, Token.new())
        except OSError as error:
            raise UsageError(f"{str(directory)!r} cannot be written: {error.strerror}") from error
        typer.echo(
            f"a certificate for {', '.join(names)} of {days:g} days; give each process\n"
            f"  --tls-cert {directory / CERT_FILE} --tls-key {directory / KEY_FILE} "
            f"--tls-ca {directory / CA_FILE} --tls-client-ca {directory / CA_FILE}\n"
            f"  --token-file {directory / TOKENS_FOLDER / JOB_TOKEN}\n"
            f"Keep {CA_KEY_FILE} to yourself: it issues certificates."
        )


def make_certificates(directory: Path, hosts: list[str], days: float) -> None:
    """Writes a certificate for hosts, and its authority unless the directory has one.

    Args:
        directory: Gets `ca.pem`, `ca-key.pem`, `cert.pem` and `key.pem`; keys with mode 0600.
        hosts: Names and IP addresses.
        days: For which the certificate is valid.

    Raises:
        OSError: The directory cannot be written.
        UsageError: It has a broken authority, or a host is no name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        authority = _authority(directory)
        issued = authority.issue_cert(*hosts, not_after=datetime.now(UTC) + timedelta(days=days))
    except ValueError as error:
        raise UsageError(f"no certificate for {', '.join(hosts)}: {error}") from error
    chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
    # A reader that finds one of them new and the other not reads both again.
    _write(directory / KEY_FILE, issued.private_key_pem.bytes())
    _write(directory / CERT_FILE, chain, _PUBLIC)


def _authority(directory: Path) -> trustme.CA:
    import trustme

    cert, key = directory / CA_FILE, directory / CA_KEY_FILE
    if cert.exists() and key.exists():
        return trustme.CA.from_pem(cert.read_bytes(), key.read_bytes())
    authority = trustme.CA(organization_name="paramserve test set-up")
    _write(key, authority.private_key_pem.bytes())
    _write(cert, authority.cert_pem.bytes(), _PUBLIC)
    return authority


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replaces a file at once."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    os.fchmod(descriptor, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.replace(temporary, path)
