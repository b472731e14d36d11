"""Addresses and master strings: reading, writing and refusals."""

import re

import pytest

from paramserve.cluster.address import (
    Address,
    join_address,
    parse_address,
    parse_host,
    parse_master,
    validate_address,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:2222", Address("localhost", 2222)),
        (" ps-0.ps.default.svc:1 ", Address("ps-0.ps.default.svc", 1)),
        ("127.0.0.1:65535", Address("127.0.0.1", 65535)),
        ("[::1]:80", Address("::1", 80)),
        ("host:0080", Address("host", 80)),
    ],
)
def test_an_address_is_read(text, address):
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


def test_an_address_is_written_in_one_way():
    assert validate_address("[FD00:0::1]:0443") == "[fd00::1]:443"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' has no port"),
        ("localhost", "'localhost' has no port"),
        ("[::1]", r"'\[::1\]' has no port"),
        (":2222", "':2222' has no host"),
        ("host:", "port '': use a number from 1 to 65535"),
        ("host:0", "port '0': use a number from 1 to 65535"),
        ("host:65536", "port '65536': use a number from 1 to 65535"),
        ("host:-1", "port '-1': use a number from 1 to 65535"),
        ("host:http", "port 'http': use a number from 1 to 65535"),
        ("host:²", "port '²': use a number"),
        ("host:" + "9" * 5000, "use a number from 1 to 65535"),
        ("::1:2222", "an IPv6 host in brackets"),
        ("[host]:2222", "no IPv6 address in its brackets"),
        ("a:1,b:2", "several colons: write one"),
        ("two words:1", "malformed host 'two words'"),
        ("host/path:1", "malformed host 'host/path'"),
        ("grpc://host:1", "has a scheme: write 'host:port', such as 'host:1'"),
        (None, "None is no text"),
        (2222, "2222 is no text"),
    ],
)
def test_a_malformed_address_is_refused(text, complaint):
    with pytest.raises(ValueError, match=f"--chief .*{complaint}"):
        validate_address(text, "--chief")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("localhost", "localhost:80"),
        ("10.0.0.7", "10.0.0.7:80"),
        ("::1", "[::1]:80"),
        ("[::1]", "[::1]:80"),
        ("FD00:0::1", "[fd00::1]:80"),
        ("fe80::1%eth0", "[fe80::1%eth0]:80"),
    ],
)
def test_host_and_port_are_joined_whatever_kind_of_host_it_is(host, address):
    assert join_address(host, 80) == address
    assert parse_address(address) == Address(parse_host(host), 80)


@pytest.mark.parametrize("host", ["", "::1:2222:x", "host:2222", "[::1]:2222", "two words", "[::1"])
def test_a_malformed_host_is_refused(host):
    with pytest.raises(ValueError, match=f"--host {re.escape(repr(host))}"):
        parse_host(host, "--host")


def test_a_master_is_this_process_or_a_server():
    assert parse_master("") is None
    assert parse_master("grpc://localhost:2222") == "localhost:2222"


@pytest.mark.parametrize("master", ["local", "localhost:2222", "http://h:1", "grpc:/h:1", "GRPC"])
def test_an_unknown_master_is_refused(master):
    with pytest.raises(ValueError, match=f"unknown master '{master}': use .*grpc://host:port"):
        parse_master(master)


def test_a_master_with_a_malformed_address_is_refused():
    with pytest.raises(ValueError, match="master string 'localhost' has no port"):
        parse_master("grpc://localhost")
