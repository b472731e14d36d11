"""The attacker: one process, told the address of a chief and the kind of the attack.

It continues until it is ended, and prints a dot when it has begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from ...cluster.address import parse_address
from ...cluster.token import TOKEN_VARIABLE
from ...protos import membership_pb2, shards_pb2, status_pb2

_LOWEST_PRIORITY = 19
_CALL_SECS = 5.0
_WATCHERS = 1000
_CONNECTIONS = 300
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_HTTP1 = b"POST / HTTP/1.1\r\nHost: chief\r\nContent-Length: 100000\r\n\r\n" + b"x" * 1000
_METHODS = [
    f"/{service.full_name}/{method.name}"
    for module in (membership_pb2, shards_pb2, status_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    # A caller with the right to stop a job may do so: that is no attack.
    if method.name not in ("Stop", "Scale", "SaveCheckpoint")
]


class Attacker:
    """The attacks on one chief.

    Args:
        address: Of its control service.
        per_sec: Calls or connections in a second.
        token: Sent with each call, if not empty.

    Attributes:
        begun: Calls or connections so far.
    """

    def __init__(self, address: str, per_sec: float, token: str = "") -> None:
        self._address = address
        self._pause_secs = 1.0 / per_sec
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._open: set[Any] = set()
        self.begun = 0

    async def run(self, kind: str) -> None:
        """Attacks until it is cancelled."""
        attack: Callable[[], Awaitable[None]] = getattr(self, kind)
        print(".", flush=True)
        await attack()

    async def noise(self) -> None:
        """Random bytes to every method."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            while True:
                call = _raw(channel, random.choice(_METHODS))
                self._begin(call, random.randbytes(random.randrange(200)))
                await asyncio.sleep(self._pause_secs)

    async def forgery(self) -> None:
        """Heartbeats, leaves and requests of lives that are not in the job, or were once."""
        former = [uuid.uuid4().hex for _ in range(5)]
        async with grpc.aio.insecure_channel(self._address) as channel:
            while True:
                task = membership_pb2.TaskId(
                    role=random.choice(["ps", "worker"]), index=random.randrange(4)
                )
                life = random.choice(former)
                name, request = random.choice(
                    [
                        ("Attend", membership_pb2.TaskReport(task=task, incarnation=life)),
                        ("Leave", membership_pb2.LeaveRequest(task=task, incarnation=life)),
                        ("GiveNotice", membership_pb2.NoticeRequest(task=task, incarnation=life)),
                        (
                            "AwaitReady",
                            membership_pb2.AwaitReadyRequest(min_generation=10**6, timeout_secs=1),
                        ),
                    ]
                )
                call = _raw(channel, f"/paramserve.Membership/{name}")
                self._begin(call, request.SerializeToString())
                await asyncio.sleep(self._pause_secs)

    async def http1(self) -> None:
        """HTTP/1 at the gRPC port."""
        while True:
            with contextlib.suppress(OSError), self._connect() as connection:
                connection.sendall(_HTTP1)
            await asyncio.sleep(self._pause_secs)

    async def slow(self) -> None:
        """Connections that say nothing, little by little, or not to their end."""
        connections: list[socket.socket] = []
        while True:
            with contextlib.suppress(OSError):
                connections.append(self._connect())
                sent = random.choice([b"", _PREFACE[:3], _PREFACE])
                connections[-1].sendall(sent)
                if sent == _PREFACE:
                    connections[-1].shutdown(socket.SHUT_WR)
            if len(connections) > _CONNECTIONS:
                connections.pop(0).close()
            await asyncio.sleep(self._pause_secs)

    async def watchers(self) -> None:
        """A thousand watchers of the status, at the shortest interval."""
        request = status_pb2.WatchStatusRequest(interval_secs=0.05).SerializeToString()
        async with grpc.aio.insecure_channel(self._address) as channel:
            while True:
                if len(self._open) < _WATCHERS:
                    call = _raw(channel, "/paramserve.Status/WatchStatus")
                    self._begin(call, request, timeout_secs=600.0)
                await asyncio.sleep(self._pause_secs)

    async def tokens(self) -> None:
        """Wrong tokens at rate."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            while True:
                self._metadata = (("authorization", f"Bearer {secrets.token_hex(32)}"),)
                self._begin(_raw(channel, "/paramserve.Status/GetStatus"), b"")
                await asyncio.sleep(self._pause_secs)

    def _connect(self) -> socket.socket:
        self.begun += 1
        chief = parse_address(self._address)
        return socket.create_connection((chief.host, chief.port), timeout=1.0)

    def _begin(self, method: Any, request: bytes, timeout_secs: float = _CALL_SECS) -> None:
        self.begun += 1
        call = method(iter([request]), timeout=timeout_secs, metadata=self._metadata)
        task = asyncio.create_task(_read_all(call))
        self._open.add(task)
        task.add_done_callback(self._open.discard)


def _raw(channel: Any, method: str) -> Any:
    """A method whose requests and answers are bytes."""
    return channel.stream_stream(method)


async def _read_all(call: Any) -> None:
    with contextlib.suppress(grpc.RpcError):
        async for _ in call:
            pass


if __name__ == "__main__":
    address, kind, rate = sys.argv[1:4]
    os.nice(_LOWEST_PRIORITY)
    asyncio.run(Attacker(address, float(rate), os.environ.get(TOKEN_VARIABLE, "")).run(kind))
