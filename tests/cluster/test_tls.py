"""Calls over TLS, certificates that change under them, and the messages of refusals."""

import os
import socket
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from paramserve.cluster import tls as tls_module
from paramserve.cluster.access import Access
from paramserve.cluster.diagnosis import diagnose
from paramserve.cluster.tls import Tls, TlsFiles
from paramserve.cluster.token import Right, Token
from paramserve.errors import UsageError

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(autouse=True)
def _look_always(monkeypatch):
    """Files are looked at for each call, and not once a second."""
    monkeypatch.setattr(tls_module, "_LOOK_SECS", 0.0)


def call(address, access):
    """Returns the health of the server there, over a channel of its own."""
    with access.open_channel(address, Right.READ) as channel:
        return health_of(channel)


def health_of(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(), timeout=20).status


def access_of(files):
    return Access(tls=Tls(files))


def test_calls_cross_with_a_certificate_on_both_sides(authority, serve_health):
    address = serve_health(authority.files())
    assert call(address, access_of(authority.files())) == SERVING
    assert diagnose(address, access_of(authority.files())) is None


def test_a_server_that_asks_for_no_certificate_is_called_without(authority, serve_health):
    address = serve_health(authority.files(asks_clients=False))
    assert call(address, access_of(authority.files(serves=False))) == SERVING


def test_a_certificate_for_another_name(make_authority, serve_health):
    authority = make_authority("census-chief")
    address = serve_health(authority.files())
    access = access_of(authority.files())
    with pytest.raises(grpc.RpcError):
        call(address, access)
    assert "not for '127.0.0.1': give --tls-name NAME" in diagnose(address, access)
    named = access_of(authority.files(name="census-chief"))
    assert call(address, named) == SERVING
    assert diagnose(address, named) is None


def test_refusals_say_what_to_do(make_authority, serve_health):
    authority, other = make_authority(), make_authority()
    address = serve_health(authority.files())
    expired = make_authority(days=-1)
    for access, expected in (
        (Access(), f"the chief at {address} serves over TLS: give --tls-ca"),
        (access_of(authority.files(serves=False)), "asks for a certificate: give --tls-cert"),
        (access_of(other.files()), "has not issued it: give that of the chief's authority"),
        (
            access_of(other.files(ca=authority.files().ca)),
            "give one of the authority that the chief has as --tls-client-ca",
        ),
    ):
        with pytest.raises(grpc.RpcError) as failure:
            call(address, access)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        assert expected in diagnose(address, access)
    address = serve_health(replace(authority.files(), client_ca=expired.files().ca))
    access = access_of(expired.files(ca=authority.files().ca))
    assert "which has expired on" in diagnose(address, access)
    address = serve_health(expired.files())
    assert "it has expired; at the chief's --tls-cert" in diagnose(
        address, access_of(expired.files())
    )
    plain = serve_health()
    assert "serves without TLS: leave --tls-ca out" in diagnose(plain, access_of(authority.files()))
    assert diagnose(plain, Access()) is None


def test_a_port_where_none_listens_needs_no_diagnosis(authority):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    assert diagnose(address, access_of(authority.files())) is None
    assert diagnose(address, Access()) is None


def test_certificates_are_read_again_when_they_change(authority, serve_health):
    """Both sides begin with expired certificates; neither is restarted, nor the channel."""
    authority.issue("127.0.0.1", days=-1)
    address = serve_health(authority.files())
    with access_of(authority.files()).open_channel(address, Right.READ) as channel:
        with pytest.raises(grpc.RpcError):
            health_of(channel)
        authority.issue("127.0.0.1")
        assert health_of(channel) == SERVING
        # As a client of long standing, whose connection outlives its certificate.
        authority.issue("127.0.0.1")
        assert health_of(channel) == SERVING


def test_files_that_do_not_fit_are_left_alone_until_they_do(authority, caplog):
    tls = Tls(authority.files())
    before = tls.contents()
    assert tls.contents() is before
    key = authority.files().key
    with open(key, "a") as file:
        file.truncate(20)
    assert tls.contents() is before
    assert "certificates stay as they were: --tls-cert" in caplog.text
    os.remove(key)
    assert tls.contents() is before
    authority.issue()
    assert tls.contents() is not before
    assert b"PRIVATE KEY" in tls.contents().key
    assert "PRIVATE KEY" not in repr(tls.contents())


def test_files_that_tls_would_fail_with_are_refused(authority, tmp_path):
    good = authority.files()
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    for files, expected in (
        (replace(good, ca=str(junk)), r"--tls-ca '.*junk\.pem' has no certificate in PEM form"),
        (replace(good, ca="/none.pem"), r"--tls-ca '/none\.pem' cannot be read: No such file"),
        (replace(good, client_ca=str(junk)), "--tls-client-ca '.*' has no certificate"),
        (replace(good, cert=str(junk)), "expected a certificate and its own private key"),
        (replace(good, key="/none.pem"), r"--tls-key '/none\.pem' cannot be read"),
    ):
        with pytest.raises(UsageError, match=expected):
            Tls(files)


def test_serving_needs_a_certificate(authority):
    with pytest.raises(UsageError, match="give --tls-cert and --tls-key"):
        Tls(TlsFiles(authority.files().ca)).server_credentials()


# Where a token may go, and where a process may serve.


def test_a_token_never_crosses_unencrypted_unless_it_is_said():
    token = Token.new()
    for address in ("192.0.2.1:7077", "no-such.invalid:7077"):
        with pytest.raises(UsageError, match=f"would go to {address} unencrypted: give --tls-ca"):
            Access(token).open_channel(address, Right.READ)
        Access(token, is_insecure=True).open_channel(address, Right.READ).close()
    Access(token).open_channel("localhost:7077", Right.READ).close()


@pytest.mark.parametrize(
    ("has_token", "has_tls", "missing"),
    [
        (False, False, r"a token \(--token-file, or PARAMSERVE_TOKEN\) and TLS \(--tls-cert"),
        (True, False, r"needs TLS \(--tls-cert, --tls-key and --tls-ca\); `paramserve certs`"),
        (False, True, r"needs a token \(--token-file"),
        (True, True, None),
    ],
)
def test_other_hosts_are_served_with_a_token_and_tls(authority, has_token, has_tls, missing):
    parts = (Token.new() if has_token else None, Tls(authority.files()) if has_tls else None)
    Access(*parts).check_host("localhost")
    Access(*parts, is_insecure=True).check_host("192.0.2.1")
    if missing is None:
        Access(*parts).check_host("192.0.2.1")
        return
    with pytest.raises(UsageError, match=f"--host 192.0.2.1: other hosts .*{missing}"):
        Access(*parts).check_host("192.0.2.1")
