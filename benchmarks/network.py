"""The network of a run: all processes on loopback, or each on a host of its own."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass
from typing import Protocol

LOOPBACK = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections.
_FIRST_PORT, _LAST_PORT = 15_000, 32_000


@dataclass(frozen=True)
class Place:
    """The address of a process and its network namespace.

    Attributes:
        address: "host:port".
        network: Network namespace that it has to enter, or None.
    """

    address: str
    network: str | None = None


class Network(Protocol):
    """Gives places to processes."""

    single_host: bool

    def places(self, count: int) -> list[Place]:
        """Returns a place each for `count` processes of one run."""

    def sent_bytes(self) -> int:
        """Returns the bytes sent so far, headers included."""


class Loopback:
    """All processes on this host."""

    single_host = True

    def places(self, count: int) -> list[Place]:
        """Ports that are free now."""
        ports: list[int] = []
        while len(ports) < count:
            port = random.randrange(_FIRST_PORT, _LAST_PORT)
            if port not in ports and _is_free(port):
                ports.append(port)
        return [Place(f"{LOOPBACK}:{port}") for port in ports]

    def sent_bytes(self) -> int:
        """Returns the bytes sent so far, headers included."""
        return read_sent_bytes("lo")


def read_sent_bytes(interface: str, network_root: str = "/sys/class/net") -> int:
    """Returns the bytes that a network interface has sent so far."""
    with open(f"{network_root}/{interface}/statistics/tx_bytes") as file:
        return int(file.read())


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
