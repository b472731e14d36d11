"""The addresses at which the servers of this process listen."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from ..errors import UsageError

log = logging.getLogger(__name__)

_LOOPBACK_DEVICE = b"lo\0"
_TRIES = 16


def is_loopback(host: str) -> bool:
    """Returns whether only processes of this host reach a host name or address.

    Raises:
        UsageError: The name does not resolve here.
    """
    return all(_is_loopback_address(each) for each in _resolve(host))


def listen(host: str, port: int, bind: Callable[[str, int], int], option: str = "--port") -> int:
    """Listens at the addresses of a host: all to which its name resolves, and no others.

    An address that this host does not have, as behind a translation of addresses, cannot be
    listened at; its servers listen at all addresses, unless it is a loopback address.

    Args:
        host: Host name or address under which others reach this process.
        port: TCP port; 0 takes one that is free at all of them.
        bind: Binds an IP address and a port, and returns the port; 0 or OSError: it is in use.
        option: Gives the port, for the error.

    Returns:
        The port.

    Raises:
        UsageError: The port is in use, or the name does not resolve here.
    """
    addresses = _own_addresses(host)
    bound = port or (_free_port(addresses) if len(addresses) > 1 else 0)
    for address in addresses:
        try:
            bound = bind(address, bound)
        except OSError:
            bound = 0
        if bound == 0:
            raise UsageError(
                f"{option} {port} is in use on {host}: is another process running there? "
                "Give another, or 0 for a free one"
            )
    return bound


def confine_to_loopback(port: int) -> None:
    """Restricts a server of this process that listens at all addresses to loopback connections.

    For TensorFlow's server, which cannot be given an address to listen at. Without effect, and
    with a warning, on kernels before Linux 5.7.
    """
    for listener in _listeners(port):
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _LOOPBACK_DEVICE)
        except OSError as error:
            log.warning(
                "TensorFlow's server listens on port %d at all addresses of this host, and cannot "
                "be confined to loopback (%s): close the port to others with a packet filter",
                port,
                error.strerror,
            )


def _listeners(port: int) -> Iterator[socket.socket]:
    """Yields the sockets of this process that listen on a TCP port, each as a duplicate."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if not os.readlink(descriptor).startswith("socket:"):
                continue
            # Of what is no socket, it would fail after it has taken the duplicate.
            with socket.socket(fileno=os.dup(int(descriptor.name))) as each:
                is_listening = each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if is_listening and each.getsockname()[1:2] == (port,):
                    yield each


def _own_addresses(host: str) -> list[str]:
    """Returns the addresses of a host, or the wildcard if this machine has none of them."""
    resolved = _resolve(host)
    own = [each for each in resolved if _is_here(each)]
    if own or any(_is_loopback_address(each) for each in resolved):
        return own
    log.warning("--host %s is no address of this host: listening at all of its addresses", host)
    return ["::" if _has_dual_stack() else "0.0.0.0"]


def _free_port(addresses: Sequence[str]) -> int:
    """Returns a port that is free at all of several addresses.

    Raises:
        UsageError: None was found.
    """
    for _ in range(_TRIES):
        with ExitStack() as held, suppress(OSError):
            port = 0
            for address in addresses:
                probe = held.enter_context(socket.socket(family(address), socket.SOCK_STREAM))
                probe.bind((address, port))
                port = int(probe.getsockname()[1])
            return port
    raise UsageError(f"no port is free at all of {', '.join(addresses)}: give one with --port")


def _resolve(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(
            f"--host {host!r} does not resolve here ({error.strerror}): give a name or "
            "address under which other tasks reach this process"
        ) from error
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _is_loopback_address(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_here(address: str) -> bool:
    try:
        with socket.socket(family(address), socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def family(address: str) -> socket.AddressFamily:
    """Returns the kind of an IP address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _has_dual_stack() -> bool:
    """Returns whether one socket of this host can serve IPv4 and IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            return not probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return False
