"""`paramserve certs`: files that processes can call each other with."""

import stat

import grpc
import pytest
from cryptography import x509
from typer.testing import CliRunner

from paramserve.cli.app import app
from paramserve.cluster.tls import Tls, TlsFiles
from paramserve.cluster.token import Token
from paramserve.errors import ExitCode


@pytest.fixture
def certs(tmp_path):
    """Runs the command in a directory of its own, which is `certs.directory`."""

    def run(*options):
        return CliRunner().invoke(app, ["certs", str(run.directory), *options])

    run.directory = tmp_path / "secrets"
    return run


def test_files_for_the_hosts_that_are_named(certs):
    done = certs("--hosts", "127.0.0.1,[::1],census-chief", "--days", "2")
    assert done.exit_code == 0, done.output
    folder = certs.directory
    cert = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in names] == ["127.0.0.1", "::1", "census-chief"]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.pem")}
    assert modes == {"ca.pem": 0o644, "cert.pem": 0o644, "key.pem": 0o600, "ca-key.pem": 0o600}
    for flag in ("--tls-cert", "--tls-key", "--tls-ca", "--tls-client-ca", "--token-file"):
        assert f"{flag} {folder}/" in done.output
    token = Token.read(folder / "tokens" / "job")
    assert token.text not in done.output
    assert isinstance(Tls(files_of(folder)).server_credentials(), grpc.ServerCredentials)


def test_a_second_run_replaces_the_certificate_alone(certs):
    assert certs().exit_code == 0
    before = contents(certs.directory)
    assert certs().exit_code == 0
    after = contents(certs.directory)
    assert {name for name in before if before[name] != after[name]} == {"cert.pem", "key.pem"}
    Tls(files_of(certs.directory))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--hosts", " , "), "expected names or addresses, with commas between"),
        (("--hosts", "two words"), "no certificate for two words"),
        (("--days", "0"), "--days 0: expected a positive number of days"),
    ],
)
def test_what_is_no_host_or_time_is_refused(certs, options, complaint):
    done = certs(*options)
    assert done.exit_code == ExitCode.USAGE
    assert complaint in done.stderr


def test_a_directory_that_cannot_be_is_refused(certs):
    certs.directory.write_text("a file")
    done = certs()
    assert done.exit_code == ExitCode.USAGE
    assert "cannot be written" in done.stderr


def test_another_authority_in_the_directory_is_left_as_it_is(certs):
    certs.directory.mkdir()
    for name in ("ca.pem", "ca-key.pem"):
        (certs.directory / name).write_text("mine")
    done = certs()
    assert done.exit_code == ExitCode.USAGE
    assert (certs.directory / "ca.pem").read_text() == "mine"


def files_of(folder):
    ca = str(folder / "ca.pem")
    return TlsFiles(ca, str(folder / "cert.pem"), str(folder / "key.pem"), ca)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
