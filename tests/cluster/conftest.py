"""Certificates and servers that the tests of calls over TLS share."""

from concurrent import futures
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2_grpc

from paramserve.cluster.tls import Tls, TlsFiles


class Authority:
    """A private authority with the files of one process."""

    def __init__(self, folder):
        self._folder = folder
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(str(folder / "ca.pem"))

    def issue(self, *hosts, days=1.0):
        """Writes a certificate in the place of the one before; with days below 0 an expired one."""
        until = datetime.now(UTC) + timedelta(days=days)
        begin = min(datetime.now(UTC), until) - timedelta(days=1)
        issued = self._ca.issue_cert(*(hosts or ("127.0.0.1",)), not_before=begin, not_after=until)
        issued.private_key_pem.write_to_path(str(self._folder / "key.pem"))
        chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
        (self._folder / "cert.pem").write_bytes(chain)
        return self

    def files(self, *, asks_clients=True, serves=True, name=None, ca=None):
        path = {each: str(self._folder / f"{each}.pem") for each in ("ca", "cert", "key")}
        cert, key = (path["cert"], path["key"]) if serves else (None, None)
        client_ca = path["ca"] if asks_clients and serves else None
        return TlsFiles(ca or path["ca"], cert, key, client_ca, name)


@pytest.fixture
def make_authority(tmp_path):
    """Makes authorities; each has issued a certificate for 127.0.0.1."""
    count = 0

    def make(*hosts, days=1.0):
        nonlocal count
        count += 1
        folder = tmp_path / f"authority-{count}"
        folder.mkdir()
        return Authority(folder).issue(*hosts, days=days)

    return make


@pytest.fixture
def authority(make_authority):
    return make_authority()


@pytest.fixture
def serve_health():
    """Serves the health service over the TLS of files, or without; returns its address."""
    servers = []

    def serve(files=None):
        server = grpc.server(futures.ThreadPoolExecutor(4))
        servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        if files is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", Tls(files).server_credentials())
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield serve
    for server in servers:
        server.stop(None)
