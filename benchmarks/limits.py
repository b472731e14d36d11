"""Limits of the machine itself: copying memory, and a raw TCP connection on loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import numpy as np

_COPY_BYTES = 64 << 20
_SEND_BYTES = 4 << 20
_SECS = 0.4


def measure_limits() -> dict[str, float]:
    """Measures the bytes per second of each limit, by its name; takes about a second."""
    return {"memcpy": memcpy_bytes_per_sec(), "tcp_loopback": tcp_bytes_per_sec()}


def memcpy_bytes_per_sec() -> float:
    """Measures the bytes that one thread copies in a second, outside the caches."""
    source = np.ones(_COPY_BYTES, np.uint8)
    target = np.empty_like(source)

    def copy() -> int:
        np.copyto(target, source)
        return _COPY_BYTES

    copy()  # Maps the memory.
    return _rate(copy)


def tcp_bytes_per_sec() -> float:
    """Measures the bytes that one connection on loopback takes in a second, in one direction."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        receiver, _ = listener.accept()
    with sender, receiver:
        threading.Thread(target=_send_until_closed, args=(sender,), daemon=True).start()
        buffer = bytearray(_SEND_BYTES)
        receiver.recv_into(buffer)
        return _rate(lambda: receiver.recv_into(buffer))


def _send_until_closed(sender: socket.socket) -> None:
    data = bytes(_SEND_BYTES)
    try:
        while True:
            sender.sendall(data)
    except OSError:
        return


def _rate(move: Callable[[], int]) -> float:
    began = time.perf_counter()
    total = 0
    while (elapsed := time.perf_counter() - began) < _SECS:
        total += move()
    return total / elapsed
