"""Addresses of processes: "host:port", and TensorFlow's master strings."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

GRPC = "grpc://"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Address:
    """The address of a process; `str(address)` is "host:port", with an IPv6 host in brackets.

    Attributes:
        host: A host name, an IPv4 address, or an IPv6 address without brackets.
        port: A TCP port, 1 to 65535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: object, what: str = "address") -> Address:
    """Reads "host:port" or "[ipv6]:port".

    Args:
        text: The text to read.
        what: Owner of the address, for the error.

    Raises:
        ValueError: If host or port is missing or malformed, or the port is not in 1..65535.
    """
    if not isinstance(text, str):
        raise ValueError(f"{what} {text!r} is no text: write it as 'host:port'")
    if "://" in text:
        bare = text.partition("://")[2]
        raise ValueError(f"{what} {text!r} has a scheme: write 'host:port', such as {bare!r}")
    host, colon, port = text.strip().rpartition(":")
    if not colon or port.endswith("]"):
        raise ValueError(f"{what} {text!r} has no port: write it as 'host:port'")
    return Address(_parse_host(host, text, what), _parse_port(port, text, what))


def validate_address(text: object, what: str = "address") -> str:
    """Returns `text` as a canonical "host:port"; see `parse_address` for arguments and errors."""
    return str(parse_address(text, what))


def parse_host(text: str, what: str = "host") -> str:
    """Reads a host name or address as people write it: an IPv6 address with or without brackets.

    Args:
        text: The text to read.
        what: Owner of the host, for the error.

    Returns:
        The host as `Address` has it.

    Raises:
        ValueError: If it is malformed, or has a port.
    """
    bare = text.strip()
    try:
        return str(ipaddress.IPv6Address(bare))
    except ValueError:
        pass
    if ":" in bare and not bare.startswith("["):
        raise ValueError(
            f"{what} {text!r} is no IPv6 address: write a host or an IP address, without a port"
        )
    return _parse_host(bare, text, what)


def join_address(host: str, port: int) -> str:
    """Returns "host:port", with an IPv6 host in brackets.

    Args:
        host: As `parse_host` takes it.
        port: A TCP port, 0 to 65535.

    Raises:
        ValueError: If the host is malformed.
    """
    return str(Address(parse_host(host), port))


def parse_master(master: str) -> str | None:
    """Reads a TensorFlow master string.

    Args:
        master: "" for this process alone, or "grpc://host:port" for a TensorFlow server.

    Returns:
        "host:port" of the server, or None for this process.

    Raises:
        ValueError: If `master` is anything else.
    """
    if not master:
        return None
    if not master.startswith(GRPC):
        remedy = f"use '' for this process or '{GRPC}host:port' for a TensorFlow server"
        raise ValueError(f"unknown master {master!r}: {remedy}")
    return validate_address(master.removeprefix(GRPC), "the address in the master string")


def _parse_host(host: str, text: str, what: str) -> str:
    if not host:
        raise ValueError(f"{what} {text!r} has no host: write it as 'host:port'")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError as error:
            raise ValueError(f"{what} {text!r} has no IPv6 address in its brackets") from error
    if ":" in host:
        raise ValueError(
            f"{what} {text!r} has several colons: write one 'host:port', an IPv6 host in brackets"
        )
    if not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise ValueError(
            f"{what} {text!r} has the malformed host {host!r}: use a host name or an IP address"
        )
    return host


def _parse_port(port: str, text: str, what: str) -> int:
    digits = port.lstrip("0") if port.isascii() and port.isdecimal() else ""
    if not (1 <= len(digits) <= 5 and int(digits) <= 65535):
        raise ValueError(f"{what} {text!r} has the port {port!r}: use a number from 1 to 65535")
    return int(digits)
