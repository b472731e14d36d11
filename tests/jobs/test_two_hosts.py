"""A job on two hosts, which are network namespaces here: TLS, tokens, and who is turned away.

Needs root, so a plain run leaves it out: `python -m pytest -m netns tests/jobs/test_two_hosts.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paramserve.jobs.launch.parent import PARENT_VARIABLE
from support.waiting import until

from .conftest import LINEAR

pytestmark = [pytest.mark.netns, pytest.mark.timeout(900)]

# Of the range that is set apart for benchmarks of networks (RFC 2544).
CHIEF_HOST, TASK_HOST = "198.19.77.1", "198.19.77.2"
CHIEF = f"{CHIEF_HOST}:7077"
USAGE, PREEMPTED = 2, 143
TF_SERVER = """
import sys, time
from paramserve.cluster.runtime import start_server
print(start_server(sys.argv[1]).address, flush=True)
sys.stdin.read()
"""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
    print("accepted")
except ConnectionRefusedError:
    print("refused")
"""
CERTIFICATE = """
import ssl, sys
print(ssl.get_server_certificate((sys.argv[1], int(sys.argv[2]))))
"""


class Hosts:
    """Two hosts with a cable between them, and the processes on them."""

    def __init__(self, folder):
        self._folder = folder
        self.names = [f"ps{os.getpid()}a", f"ps{os.getpid()}b"]
        self._started = []

    def __enter__(self):
        first, second = self.names
        for name in self.names:
            _do("ip", "netns", "add", name)
            _do("ip", "-n", name, "link", "set", "lo", "up")
        _do(*f"ip -n {first} link add eth0 type veth peer name eth0 netns {second}".split())
        for name, address in zip(self.names, (CHIEF_HOST, TASK_HOST), strict=True):
            _do(*f"ip -n {name} addr add {address}/24 dev eth0".split())
            _do(*f"ip -n {name} link set eth0 up".split())
        return self

    def __exit__(self, *_):
        for process in self._started:
            process.kill()
            process.wait()
        for name in self.names:
            _do("ip", "netns", "del", name)

    def command(self, address, *arguments):
        """The command line of a Python process on the host with an address."""
        name = self.names[(CHIEF_HOST, TASK_HOST).index(address)]
        return ["ip", "netns", "exec", name, sys.executable, *map(str, arguments)]

    def start(self, address, *arguments, env=None, **pipes):
        """Starts a Python process on a host; its output is in the file `log` of the process."""
        log = self._folder / f"process-{len(self._started)}.log"
        environment = {**os.environ, "PARAMSERVE_TOKEN": "", PARENT_VARIABLE: str(os.getpid())}
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(address, *arguments),
                env=environment | (env or {}),
                stdout=pipes.get("stdout", output),
                stdin=pipes.get("stdin"),
                stderr=subprocess.STDOUT,
            )
        process.log = log
        self._started.append(process)
        return process

    def run(self, address, *arguments):
        """Runs a Python process on a host to its end, and returns its output."""
        command = self.command(address, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout


def _do(*command):
    subprocess.run(command, check=True, timeout=20)


@pytest.fixture
def hosts(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Hosts(tmp_path) as hosts:
        yield hosts


class Secrets:
    """What `paramserve certs` makes, of one authority and for one job."""

    def __init__(self, folder):
        self.folder = folder
        self.renew()

    def renew(self, days=1.0, hosts=f"{CHIEF_HOST},{TASK_HOST}"):
        command = [sys.executable, "-m", "paramserve", "certs", str(self.folder)]
        command += ["--hosts", hosts, "--days", str(days)]
        subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)

    def flags(self, *, token="member", cert=None):
        own = cert or self.folder
        flags = ["--tls-ca", self.folder / "ca.pem", "--tls-client-ca", self.folder / "ca.pem"]
        flags += ["--tls-cert", own / "cert.pem", "--tls-key", own / "key.pem"]
        return [*flags, *(["--token-file", self.folder / "tokens" / token] if token else [])]


@pytest.fixture
def secrets(tmp_path):
    return Secrets(tmp_path / "secrets")


@pytest.fixture
def job(hosts, secrets, tmp_path):
    """A job that trains: its chief on one host, its parameter server and worker on the other."""
    return Job(hosts, secrets, tmp_path / "job")


class Job:
    def __init__(self, hosts, secrets, logdir):
        self._hosts, self._secrets = hosts, secrets
        options = ["--port", 7077, "--logdir", logdir, "--workers", 1, "--async"]
        # So slow that it lasts for the whole test.
        options += ["--param", "slow=0.02", "--heartbeat-secs", 0.5, "--lease-secs", 20]
        flags = secrets.flags(token="job")
        command = ("-m", "paramserve", "chief", LINEAR, "--host", CHIEF_HOST, *options, *flags)
        self.chief = hosts.start(CHIEF_HOST, *command)
        self.tasks = [self.join("ps"), self.join("worker", LINEAR)]
        self.until_step(20)

    def join(self, *role, host=("--host", TASK_HOST), flags=None, env=None):
        flags = self._secrets.flags() if flags is None else flags
        command = ("-m", "paramserve", *role, "--chief", CHIEF, *host, *flags)
        return self._hosts.start(TASK_HOST, *command, env=env)

    def ask(self, command, *more, token="read"):
        flags = self._secrets.flags(token=token)
        return self._hosts.run(
            TASK_HOST, "-m", "paramserve", command, "--chief", CHIEF, *flags, *more
        )

    def status(self):
        try:
            return json.loads(self.ask("status", "--json"))
        except AssertionError:
            return {"global_step": 0, "tasks": []}

    def until_step(self, step):
        """Waits for a step, and returns the status then."""

        def look():
            for process in (self.chief, *self.tasks):
                assert process.poll() is None, process.log.read_text()
            status = self.status()
            return int(status["global_step"]) >= step and status

        return until(look, f"step {step}", look_secs=0.5)


def refusal_of(process):
    """The last line of a process that was turned away as badly used."""
    code = process.wait(180)
    text = process.log.read_text()
    assert code == USAGE, text
    return text.strip().splitlines()[-1]


def test_strangers_are_turned_away_and_training_continues(job, secrets, tmp_path):
    other = Secrets(tmp_path / "other")
    expired = Path(tmp_path / "expired")
    _issue_expired(secrets.folder, expired)
    token_of_another = ["--token-file", other.folder / "tokens" / "member"]
    tls = secrets.flags(token=None)
    attempts = {
        "needs a token (--token-file, or PARAMSERVE_TOKEN)": {"flags": tls},
        "taking part in a job needs a token: give --token-file": {"flags": [*tls, "--insecure"]},
        "the token is of another job": {"flags": [*tls, *token_of_another]},
        "needs another: give the token of the job, or its member token": {
            "flags": secrets.flags(token="read")
        },
        "has expired on": {"flags": secrets.flags(cert=expired)},
        "serves over TLS: give --tls-ca": {
            "flags": ["--insecure", "--token-file", secrets.folder / "tokens" / "member"]
        },
        "would go to 198.19.77.1:7077 unencrypted": {
            "flags": ["--token-file", secrets.folder / "tokens" / "member"],
            "host": ("--host", "127.0.0.1"),
        },
    }
    before = job.status()
    processes = {
        text: job.join("worker", LINEAR, "--max-wait-secs", 60, **how)
        for text, how in attempts.items()
    }
    for text, process in processes.items():
        assert text in refusal_of(process)
    after = job.until_step(int(before["global_step"]) + 20)
    assert len(after["tasks"]) == len(before["tasks"]) == 2
    assert after["recoveries"] == before["recoveries"]

    job.ask("stop", token="control")
    assert [process.wait(120) for process in (job.chief, *job.tasks)] == [0, 0, 0]


def test_certificates_are_replaced_under_training(job, hosts, secrets):
    """The former one is of no use afterwards: a task that joins with it would be refused."""
    before = job.status()
    served = hosts.run(TASK_HOST, "-c", CERTIFICATE, CHIEF_HOST, 7077)
    secrets.renew()

    def is_new():
        return hosts.run(TASK_HOST, "-c", CERTIFICATE, CHIEF_HOST, 7077) != served

    until(is_new, "the new certificate")
    job.tasks.append(job.join("worker", LINEAR))
    until(lambda: len(job.status()["tasks"]) == 3, "one more task", look_secs=0.5)
    after = job.until_step(int(before["global_step"]) + 40)
    assert after["recoveries"] == before["recoveries"]
    assert job.chief.log.read_text().count("certificates were read again") >= 1

    job.ask("stop", token="control")
    assert [process.wait(120) for process in (job.chief, *job.tasks)] == [0, 0, 0, 0]


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", "refused"), (CHIEF_HOST, "accepted")])
def test_tensorflows_server_is_reached_from_other_hosts_unless_its_host_is_loopback(
    hosts, host, expected
):
    pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.PIPE}
    server = hosts.start(CHIEF_HOST, "-c", TF_SERVER, host, **pipes)
    address = next(
        line.decode().strip() for line in server.stdout if line.startswith(host.encode())
    )
    port = address.rpartition(":")[2]
    assert hosts.run(CHIEF_HOST, "-c", CONNECT, host, port).strip() == "accepted"
    assert hosts.run(TASK_HOST, "-c", CONNECT, CHIEF_HOST, port).strip() == expected


def _issue_expired(authority, folder):
    """Writes a certificate of the job's authority that was valid until yesterday."""
    from datetime import UTC, datetime, timedelta

    import trustme

    folder.mkdir()
    ca = trustme.CA.from_pem(
        (authority / "ca.pem").read_bytes(), (authority / "ca-key.pem").read_bytes()
    )
    now = datetime.now(UTC)
    issued = ca.issue_cert(
        TASK_HOST, not_before=now - timedelta(days=2), not_after=now - timedelta(days=1)
    )
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
