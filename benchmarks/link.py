"""`LimitedLink`: hosts with a network of limited rate between them, on one machine.

Each host is a network namespace. A virtual cable joins it to a bridge in another namespace. A token
bucket (`tc-tbf(8)`) limits the rate at both of its ends.
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import ExitStack
from typing import Final, Self

from ..errors import UsageError
from .network import Place

_PORT = 15_000
_SUBNET = "10.213.0"
# tbf needs a burst above the rate divided by the kernel's tick; 4 ms is the slowest usual one.
_TICK_SECS = 0.004
_LEAST_BURST_BYTES = 128 * 1024
_QUEUE_MS = 20
_UNITS: Final = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_COMMAND_SECS = 20.0


def parse_rate(text: str) -> float:
    """Converts "1gbit" or "100mbit" to bits per second.

    Raises:
        UsageError: It is no rate.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(kbit|mbit|gbit)", text)
    rate = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if rate < 1e6:
        raise UsageError(
            f"--link {text!r}: expected a rate from 1mbit up, such as 1gbit or 100mbit"
        )
    return rate


class LimitedLink:
    """A context manager for such a network; needs root and `ip` and `tc` of iproute2.

    Args:
        rate: As `parse_rate` takes it, in each direction of each host.

    Raises:
        UsageError: The rate is none, or this process may not make network namespaces.
    """

    single_host = False

    def __init__(self, rate: str) -> None:
        self._bits_per_sec = parse_rate(rate)
        self._prefix = f"psbench{os.getpid()}"
        self._switch = f"{self._prefix}-switch"
        self._hosts: list[str] = []
        self._ports = iter(range(_PORT, 65_000))
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._add_namespace(self._switch)
            self._in(self._switch, "ip link add bridge0 type bridge")
            self._in(self._switch, "ip link set bridge0 up")
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def places(self, count: int) -> list[Place]:
        """Returns a host each; ports are new each time."""
        while len(self._hosts) < count:
            self._add_host(len(self._hosts))
        port = next(self._ports)
        return [
            Place(f"{_SUBNET}.{index + 1}:{port}", self._hosts[index]) for index in range(count)
        ]

    def sent_bytes(self) -> int:
        """Returns the bytes that the hosts have sent to the bridge."""
        total = 0
        for index in range(len(self._hosts)):
            file = f"/sys/class/net/host{index}/statistics/rx_bytes"
            total += int(self._in(self._switch, f"cat {file}"))
        return total

    def _add_namespace(self, name: str) -> None:
        _run(f"ip netns add {name}")
        self._cleanup.callback(_run, f"ip netns del {name}")
        self._in(name, "ip link set lo up")

    def _add_host(self, index: int) -> None:
        host, port = f"{self._prefix}-{index}", f"host{index}"
        self._add_namespace(host)
        self._in(self._switch, f"ip link add {port} type veth peer name eth0 netns {host}")
        self._in(self._switch, f"ip link set {port} master bridge0 up")
        self._in(host, f"ip addr add {_SUBNET}.{index + 1}/24 dev eth0")
        self._in(host, "ip link set eth0 up")
        for namespace, device in ((host, "eth0"), (self._switch, port)):
            self._in(namespace, f"tc qdisc add dev {device} root {self._limit()}")
        self._hosts.append(host)

    def _limit(self) -> str:
        rate = int(self._bits_per_sec)
        burst = max(_LEAST_BURST_BYTES, int(self._bits_per_sec / 8 * _TICK_SECS))
        return f"tbf rate {rate}bit burst {burst}b latency {_QUEUE_MS}ms"

    def _in(self, namespace: str, command: str) -> str:
        return _run(f"ip netns exec {namespace} {command}")


def _run(command: str) -> str:
    try:
        done = subprocess.run(
            command.split(), capture_output=True, text=True, timeout=_COMMAND_SECS, check=True
        )
    except FileNotFoundError:
        raise UsageError(f"--link needs {command.split()[0]!r}: install iproute2") from None
    except subprocess.CalledProcessError as error:
        raise UsageError(
            f"--link: `{command}` failed: {error.stderr.strip()}; it needs root, and the right to "
            "make network namespaces"
        ) from error
    return done.stdout
