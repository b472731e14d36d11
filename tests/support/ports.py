"""Ports for processes that have to be told in advance where to listen."""

import contextlib
import socket

import pytest


def free_ports(count, host="127.0.0.1"):
    """Different ports that were free a moment ago; the test is skipped where `host` is unknown."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket(family)) for _ in range(count)]
        for probe in probes:
            try:
                probe.bind((host, 0))
            except OSError as error:
                pytest.skip(f"this machine has no address {host}: {error}")
        return [probe.getsockname()[1] for probe in probes]


def free_port():
    """A port that was free a moment ago."""
    return free_ports(1)[0]


def free_addresses(count, host="127.0.0.1"):
    """Addresses, each with a port that was free a moment ago."""
    shown = f"[{host}]" if ":" in host else host
    return [f"{shown}:{port}" for port in free_ports(count, host)]


def free_cluster(host="127.0.0.1", **jobs):
    """The definition of a static cluster: `free_cluster(ps=2, worker=1)`."""
    addresses = iter(free_addresses(sum(jobs.values()), host))
    return {job: [next(addresses) for _ in range(count)] for job, count in jobs.items()}
