"""The addresses at which servers listen."""

import os
import socket
import urllib.request

import pytest

from paramserve.cluster.address import parse_address
from paramserve.cluster.binding import is_loopback, listen
from paramserve.cluster.metrics import MetricsServer, make_registry
from paramserve.cluster.runtime import start_server
from paramserve.errors import UsageError


@pytest.fixture
def bind():
    """Binds sockets, and remembers their addresses in `bind.at`."""
    sockets = []

    def bind(address, port):
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        sockets.append(socket.create_server((address, port), family=kind))
        bind.at.append(sockets[-1].getsockname()[0])
        return sockets[-1].getsockname()[1]

    bind.at = []
    yield bind
    for each in sockets:
        each.close()


@pytest.fixture
def two_addresses(monkeypatch):
    """A name of an IPv6 and an IPv4 address."""

    def look_up(host, port, **kind):
        assert host == "both.example"
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", 0, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_hosts(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "0.0.0.0", "::"])
def test_hosts_that_others_reach(host):
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_a_server_listens_at_the_address_of_its_host_alone(host, bind):
    port = listen(host, 0, bind)
    assert bind.at == [host]
    with pytest.raises(UsageError, match=f"--metrics-port {port} is in use on {host}: .* or 0"):
        listen(host, port, bind, "--metrics-port")


def test_a_name_of_two_addresses_has_one_port_at_both(bind, two_addresses):
    port = listen("both.example", 0, bind)
    assert bind.at == ["::1", "127.0.0.1"]
    assert port > 0


def test_an_address_of_another_device_is_served_at_all_addresses(bind, caplog):
    """Translated addresses are of this kind; 192.0.2.77 is an address for documents."""
    listen("192.0.2.77", 0, bind)
    assert bind.at in (["::"], ["0.0.0.0"])
    assert "192.0.2.77 is no address of this host" in caplog.text


def test_a_host_without_an_address_is_refused(bind):
    with pytest.raises(UsageError, match=r"--host 'no-such\.invalid' does not resolve here"):
        listen("no-such.invalid", 0, bind)


def test_metrics_are_served_at_all_addresses_of_a_host():
    server = MetricsServer(make_registry(), "localhost")
    try:
        port = parse_address(server.address).port
        for _, _, _, _, (address, *_) in socket.getaddrinfo(
            "localhost", 0, type=socket.SOCK_STREAM
        ):
            host = f"[{address}]" if ":" in address else address
            with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as page:
                assert b"process_resident_memory_bytes" in page.read()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.9", port), timeout=10)
    finally:
        server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tensorflows_server_of_a_loopback_host_is_confined_to_loopback(host, listeners):
    port = parse_address(start_server(host).address).port
    assert listeners(port) == ["lo"]
    socket.create_connection((host, port), timeout=10).close()


def test_tensorflows_server_of_another_host_is_not_confined(listeners):
    """TensorFlow listens at all addresses, whatever its cluster definition has."""
    port = parse_address(start_server("192.0.2.77").address).port
    assert listeners(port) == [""]


def test_looking_for_listeners_leaves_no_descriptor_open(listeners):
    before = len(os.listdir("/proc/self/fd"))
    listeners(1)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def listeners():
    """Returns the devices to which the listening sockets of a port are bound."""
    from paramserve.cluster.binding import _listeners

    def look(port):
        option = (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
        return [each.getsockopt(*option).decode().strip("\0") for each in _listeners(port)]

    return look
