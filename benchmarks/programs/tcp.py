"""The bytes of a step through raw sockets: the limit of the network and the machine.

A worker reads from each parameter server its share of the variables, and writes as many bytes back.
It does so afterwards or, with the option `duplex`, at the same time. There is no serialization and
no arithmetic. As in every system, each byte has a place of its own in memory on both sides, so that
caches do not hold it.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

from ..task import Task

_LANE = struct.Struct("=qq")
_REQUEST = b"?"
_DONE = b"!"
_CHUNK_BYTES = 4 << 20


def run(task: Task) -> None:
    """Runs a parameter server or a worker."""
    workload = task.find_workload()
    share = workload.bytes // len(task.addresses["ps"])
    pull = share if workload.transfer != "push" else 0
    push = share if workload.transfer != "pull" else 0
    # A connection for each list of transfers, which are done one after the other.
    lanes = [(pull, 0), (0, push)] if task.options.get("duplex") else [(pull, push)]
    if task.role == "ps":
        _serve(task)
    exchanges = []
    for address in task.addresses["ps"]:
        for lane in lanes:
            connection = socket.create_connection(_split(address), timeout=task.max_wait_secs)
            connection.sendall(_LANE.pack(*lane))
            exchanges.append(_exchange(connection, *lane))
    task.is_open()
    task.train(_all_at_once(exchanges), None)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _serve(task: Task) -> None:
    listener = socket.create_server(_split(task.address))

    def answer(connection: socket.socket) -> None:
        pull, push = _LANE.unpack(connection.recv(_LANE.size, socket.MSG_WAITALL))
        buffer = _memory(pull, push)
        while connection.recv(1):
            _send(connection, pull, buffer)
            _receive(connection, push, buffer)
            connection.sendall(_DONE)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    task.serve()


def _exchange(connection: socket.socket, pull: int, push: int) -> Callable[[], None]:
    buffer = _memory(pull, push)

    def exchange() -> None:
        connection.sendall(_REQUEST)
        _receive(connection, pull, buffer)
        _send(connection, push, buffer)
        _receive(connection, 1, buffer)

    return exchange


def _all_at_once(exchanges: list[Callable[[], None]]) -> Callable[[], None]:
    def step() -> None:
        threads = [threading.Thread(target=each) for each in exchanges[1:]]
        for thread in threads:
            thread.start()
        exchanges[0]()
        for thread in threads:
            thread.join()

    return step


def _memory(pull: int, push: int) -> bytearray:
    return bytearray(max(pull, push, len(_DONE)))


def _send(connection: socket.socket, count: int, buffer: bytearray) -> None:
    view = memoryview(buffer)[:count]
    for begin in range(0, count, _CHUNK_BYTES):
        connection.sendall(view[begin : begin + _CHUNK_BYTES])


def _receive(connection: socket.socket, count: int, buffer: bytearray) -> None:
    view = memoryview(buffer)[:count]
    while view:
        received = connection.recv_into(view[:_CHUNK_BYTES])
        if not received:
            raise ConnectionError("the other side has closed the connection")
        view = view[received:]
