"""The network of a test's processes: this host, or hosts of their own with a network between."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

RELAY = Path(__file__).with_name("relay.py")
ONLOOKER = 254


@dataclass(frozen=True)
class Place:
    """A host: its address, and its network namespace if it is another than this."""

    address: str
    namespace: str | None = None


def loopback(_: str) -> Place:
    """Everything runs here."""
    return Place("127.0.0.1")


class Network:
    """A host for each name, and faults of the network between them; a context manager.

    Addresses are of the range that is set apart for benchmarks of networks (RFC 2544).
    """

    def __init__(self):
        self._prefix = f"psf{os.getpid()}"
        self._subnet = f"198.18.{os.getpid() % 250}"
        self._numbers = {}
        self._process = None
        # A job is launched in one thread, and struck by another.
        self._lock = threading.RLock()

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, str(RELAY), self._prefix, self._subnet],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def place(self, name: str) -> Place:
        """The host of that name."""
        with self._lock:
            if name not in self._numbers:
                number = len(self._numbers) + 1
                self._ask({"host": name, "number": number})
                self._numbers[name] = number
        address = f"{self._subnet}.{self._numbers[name]}"
        return Place(address, f"{self._prefix}-{name}")

    def cut(self, name: str, *, incoming: bool) -> None:
        """Drops all packets from a host, and with `incoming` all packets to it."""
        number = self._number(name)
        self._ask({"cut_from": [number], "cut_to": [number] if incoming else []})

    def slow_down(self, name: str, delay_secs: float, loss: float) -> None:
        """Delays each packet of a host and to it, and loses some."""
        self._ask({"slow": [self._number(name)], "delay_secs": delay_secs, "loss": loss})

    def heal(self) -> None:
        """All is well again."""
        self._ask({"cut_from": [], "cut_to": [], "slow": []})

    def _number(self, name: str) -> int:
        self.place(name)
        return self._numbers[name]

    def _ask(self, order):
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        assert line, "the relay has died"
        return json.loads(line)


def why_no_network() -> str | None:
    """Why there can be no such network on this machine; None if there can."""
    if os.geteuid() != 0:
        return "only the superuser can make network namespaces"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    try:
        subprocess.run(["ip", "-V"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "there is no `ip` (iproute2)"
    return None
