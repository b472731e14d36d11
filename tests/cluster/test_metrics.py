"""Metrics of a process: over TLS, and for readers alone where other hosts reach it."""

import socket
import ssl
import urllib.error
import urllib.request

import pytest

from paramserve.cluster import metrics as metrics_module, tls as tls_module
from paramserve.cluster.access import Access
from paramserve.cluster.metrics import MetricsServer, make_registry
from paramserve.cluster.tls import Tls
from paramserve.cluster.token import Right, Token


@pytest.fixture(autouse=True)
def _look_always(monkeypatch):
    """Certificates are looked at for each connection, and not once a second."""
    monkeypatch.setattr(tls_module, "_LOOK_SECS", 0.0)


@pytest.fixture
def serve():
    servers = []

    def serve(access=None, host="127.0.0.1"):
        servers.append(MetricsServer(make_registry(), host, 0, access or Access()))
        return servers[-1].address

    yield serve
    for server in servers:
        server.stop()


@pytest.fixture
def seen_by_others(monkeypatch):
    """Takes the loopback address as one that other hosts reach."""
    monkeypatch.setattr(metrics_module, "is_loopback", lambda host: False)


def scrape(url, *, token=None, tls=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{url}/metrics", headers=headers)
    context = tls.client_context() if tls else None
    if context:
        context.set_alpn_protocols(["http/1.1"])
    with urllib.request.urlopen(request, timeout=10, context=context) as page:
        return page.read()


def test_they_are_served_over_tls_with_certificates_that_change(authority, serve):
    authority.issue("127.0.0.1", days=-1)
    address = serve(Access(tls=Tls(authority.files(asks_clients=False))))
    client = Tls(authority.files(serves=False))
    with pytest.raises(urllib.error.URLError, match="expired"):
        scrape(f"https://{address}", tls=client)
    authority.issue("127.0.0.1")
    assert b"process_resident" in scrape(f"https://{address}", tls=client)


def test_a_scraper_needs_a_certificate_where_the_chief_asks_for_one(authority, serve):
    address = serve(Access(tls=Tls(authority.files())))
    with pytest.raises((urllib.error.URLError, ConnectionError, ssl.SSLError)):
        scrape(f"https://{address}", tls=Tls(authority.files(serves=False)))
    assert b"process_resident" in scrape(f"https://{address}", tls=Tls(authority.files()))


def test_a_half_open_connection_keeps_no_other_waiting(authority, serve):
    address = serve(Access(tls=Tls(authority.files(asks_clients=False))))
    host, port = address.split(":")
    with socket.create_connection((host, int(port))):
        tls = Tls(authority.files(serves=False))
        assert b"process_resident" in scrape(f"https://{address}", tls=tls)


@pytest.mark.usefixtures("seen_by_others")
def test_other_hosts_need_the_token_to_read(serve):
    secret = Token.new()
    # Of a task: it has no more than the token of a member.
    address = serve(Access(secret.as_member()))
    for wrong in (None, "x", Token.new().for_right(Right.READ)):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            scrape(f"http://{address}", token=wrong)
        assert refusal.value.code == 401
        assert b"Authorization: Bearer TOKEN" in refusal.value.read()
    page = scrape(f"http://{address}", token=secret.for_right(Right.READ))
    assert b"process_resident" in page


def test_loopback_needs_none(serve):
    assert b"process_resident" in scrape(f"http://{serve(Access(Token.new()))}")
