"""Connections that are no gRPC, slow, half open or many: tasks stay in the job meanwhile."""

import contextlib
import socket
import ssl
import threading
import time

import grpc
import pytest

from paramserve.protos import status_pb2
from paramserve.protos.status_pb2_grpc import StatusStub
from support.waiting import until

MAX_GROWTH_BYTES = 300 << 20
HTTP1 = b"GET / HTTP/1.1\r\nHost: chief\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
# Headers of stream 1 that never end: a frame without END_HEADERS.
OPEN_HEADERS = b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82"
# A frame that says it is as long as one can be, of a kind that does not exist.
LONG_FRAME = b"\xff\xff\xff\xee\x00\x00\x00\x00\x01"


@pytest.fixture
def connect(plane):
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(
            contextlib.closing(socket.create_connection(("127.0.0.1", plane.port), timeout=30))
        )


@pytest.mark.parametrize(
    "sent",
    [HTTP1, PREFACE + LONG_FRAME, PREFACE + EMPTY_SETTINGS + OPEN_HEADERS * 50, b"\x00" * 4096],
    ids=["http1", "long frame", "headers without end", "zeros"],
)
def test_what_is_no_grpc_is_closed(plane, bystander, connect, sent):
    connections = [connect() for _ in range(50)]
    for each in connections:
        with contextlib.suppress(ConnectionError):
            each.sendall(sent)
    for each in connections:
        with contextlib.suppress(ConnectionResetError):
            while each.recv(4096):
                pass
    bystander.check()


def test_a_tls_client_at_a_plain_port(plane, bystander, connect):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(connect())
    bystander.check()


def test_slow_and_half_open_clients(plane, bystander, connect):
    before, open_before = plane.memory_bytes(), plane.descriptors()
    silent = [connect() for _ in range(100)]
    slow = [connect() for _ in range(100)]
    half_open = [connect() for _ in range(100)]
    for each in half_open:
        each.sendall(PREFACE + EMPTY_SETTINGS)
        each.shutdown(socket.SHUT_WR)
    for byte in PREFACE[:12]:
        for each in slow:
            each.sendall(bytes([byte]))
    until(lambda: plane.descriptors() >= open_before + 200, "they are connected")
    bystander.check()
    assert plane.memory_bytes() < before + MAX_GROWTH_BYTES
    for each in (*silent, *slow, *half_open):
        each.close()
    until(lambda: plane.descriptors() < open_before + 50, "connections that ended are closed")


def test_a_thousand_watchers(plane, bystander):
    before = plane.memory_bytes()
    request = status_pb2.WatchStatusRequest(interval_secs=0.05)
    refused = (grpc.StatusCode.RESOURCE_EXHAUSTED,)
    with grpc.insecure_channel(plane.address) as channel:
        watchers = [StatusStub(channel).WatchStatus(request, timeout=60) for _ in range(1000)]
        seen, codes = 0, set()
        for each in watchers:
            try:
                assert next(each).job_id == "job-1"
                seen += 1
            except grpc.RpcError as error:
                codes.add(error.code())
        assert seen > 0
        assert codes <= set(refused)
        bystander.check()
        assert plane.memory_bytes() < before + MAX_GROWTH_BYTES


def test_watchers_that_do_not_read(plane, bystander):
    """News for a caller that reads none do not accumulate."""
    options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    request = status_pb2.WatchStatusRequest(interval_secs=0.05)
    with grpc.insecure_channel(plane.address, options=options) as channel:
        method = "/paramserve.Status/WatchStatus"
        calls = [
            channel.unary_stream(method)(request.SerializeToString(), timeout=60)
            for _ in range(100)
        ]
        next(calls[0])
        before = plane.memory_bytes()
        time.sleep(2)
        bystander.check()
        assert plane.memory_bytes() < before + MAX_GROWTH_BYTES


def test_connections_that_come_and_go(plane, bystander):
    """A thousand callers that break off in the middle of a call."""
    before = plane.descriptors()

    def come_and_go():
        for _ in range(125):
            with socket.create_connection(("127.0.0.1", plane.port), timeout=30) as connection:
                connection.sendall(PREFACE + EMPTY_SETTINGS + OPEN_HEADERS)

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    bystander.check()
    until(lambda: plane.descriptors() < before + 50, "connections that ended are closed")
