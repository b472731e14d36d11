"""Fixtures for tests that start processes."""

import contextlib
import socket

import pytest


@pytest.fixture(scope="session")
def free_ports():
    """Finds ports for a static cluster, whose servers have to know each other's in advance."""

    def find(count):
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return [each.getsockname()[1] for each in sockets]

    return find
