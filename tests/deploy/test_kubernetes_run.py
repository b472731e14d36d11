"""The containers' own commands as processes of this machine: a cluster's work without one."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
from contextlib import ExitStack

import pytest
import yaml

from support.ports import free_port, free_ports

HOST = "127.0.0.1"
# Where the image has the examples and the chief's volume.
IMAGE_EXAMPLES = "/opt/paramserve/examples"
LOGDIR = "/logdir"
INTERRUPTED, PREEMPTED = 130, 143
# Of the Secret's keys, those of tokens have files of other names.
KEYS = {"token": "tokens/job", "member-token": "tokens/member"}


class Pod:
    """One pod of a Job, with addresses of this machine in place of a cluster's."""

    def __init__(self, template, index, chief_port):
        (self.container,) = template["spec"]["containers"]
        volumes = template["spec"]["volumes"]
        (self._items,) = [each["secret"]["items"] for each in volumes if "secret" in each]
        self.role, self.index = self.container["name"], index
        declared = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        free = dict(zip(declared, free_ports(len(declared)), strict=True))
        free |= {"control": chief_port} if "control" in free else {}
        self.ports = {declared[name]: free[name] for name in declared}
        self.port_names = free
        self._chief = f"{HOST}:{chief_port}"

    @property
    def name(self):
        return f"{self.role}-{self.index}"

    def arguments(self, logdir, examples, max_steps):
        """The container's arguments, as the kubelet fills them in."""
        entries = [each for each in self.container["env"] if each["name"] not in self.settings]
        variables = {entry["name"]: self._value(entry) for entry in entries}
        for argument in self.container["args"]:
            filled = re.sub(r"\$\((\w+)\)", lambda m: variables[m[1]], argument)
            filled = re.sub(r"(?<=port=)\d+$", lambda m: str(self.ports[int(m[0])]), filled)
            filled = re.sub(r"(?<=--max-steps=)\d+$", str(max_steps), filled)
            filled = filled.replace(IMAGE_EXAMPLES, str(examples))
            yield filled.replace(f"={LOGDIR}", f"={logdir}")

    @property
    def settings(self):
        """Returns the token and certificates in the environment."""
        entries = self.container["env"]
        return {e["name"]: e["value"] for e in entries if e["name"].startswith("PARAMSERVE_")}

    def environment(self, secrets):
        """The same, of files of this machine; as the volume has them, by the keys of the Secret."""
        (mount,) = [each for each in self.container["volumeMounts"] if each["name"] == "secrets"]
        keys = {f"{mount['mountPath']}/{item['path']}": item["key"] for item in self._items}
        return {
            name: str(secrets / KEYS.get(keys[value], keys[value])) if value in keys else value
            for name, value in self.settings.items()
        }

    def _value(self, entry):
        if "value" in entry:
            return {"CHIEF": self._chief}[entry["name"]]
        return {
            "status.podIP": HOST,
            "metadata.annotations['batch.kubernetes.io/job-completion-index']": str(self.index),
        }[entry["valueFrom"]["fieldRef"]["fieldPath"]]


class Cluster:
    """Runs the pods of the three Jobs once."""

    def __init__(self, deploy, logdir, helpers):
        self._logdir, self._helpers = logdir, helpers
        chief_port = free_port()
        self.pods = []
        for file in ("workers.yaml", "ps.yaml", "chief.yaml"):
            job = next(yaml.safe_load_all((deploy / "kubernetes" / file).read_text()))["spec"]
            for index in range(job["completions"]):
                self.pods.append(Pod(job["template"], index, chief_port))
        self.processes = {}
        self._stack = ExitStack()
        self.secrets = logdir / "secrets"
        # For the name of the Service and no address: pods have other ones each time.
        command = helpers.paramserve("certs", self.secrets, "--hosts", "census-chief")
        subprocess.run(command, check=True, timeout=helpers.patience_secs, capture_output=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def apply(self, max_steps, *roles):
        """Starts the pods of some roles; of all, if none is named. A cluster knows no order."""
        examples = self._helpers.root / "examples"
        for pod in self.pods_of(*roles):
            arguments = pod.arguments(self._logdir / "job", examples, max_steps)
            running = self._helpers.running(
                self._helpers.paramserve(*arguments),
                self._log(pod.name),
                pod.environment(self.secrets),
            )
            self.processes[pod.name] = self._stack.enter_context(running)

    def wait(self, condition, what):
        """Waits for a state of a healthy job; the end of a process is an error."""

        def alive():
            ended = {n: p.poll() for n, p in self.processes.items() if p.poll() is not None}
            assert not ended, f"{ended}: {self.logs()}"
            return condition()

        self._helpers.wait_until(alive, lambda: f"{what}: {self.logs()}")

    def pods_of(self, *roles):
        return [pod for pod in self.pods if not roles or pod.role in roles]

    def passes_probes(self, *roles):
        pods = self.pods_of(*roles)
        return all(self._is_alive(pod, pod.container["startupProbe"]) for pod in pods)

    def step(self):
        """The global step, as the chief shows it to Prometheus."""
        (chief,) = self.pods_of("chief")
        url = f"https://{HOST}:{chief.port_names['metrics']}/metrics"
        context = ssl.create_default_context(cafile=self.secrets / "ca.pem")
        context.load_cert_chain(self.secrets / "cert.pem", self.secrets / "key.pem")
        context.check_hostname = False
        text = self._helpers.read_url(url, context)
        return float(re.search(r"^paramserve_global_step (\S+)$", text, re.M)[1])

    def send_sigterm(self, *roles):
        for pod in self.pods_of(*roles):
            self.processes[pod.name].send_signal(signal.SIGTERM)

    def exit_codes(self):
        return {n: p.wait(self._helpers.patience_secs) for n, p in self.processes.items()}

    def logs(self):
        return "".join(f"\n== {pod.name}\n{self._log(pod.name).read_text()}" for pod in self.pods)

    def result(self):
        return json.loads((self._logdir / "job/result.json").read_text())

    def _log(self, name):
        return self._logdir / f"{name}.log"

    def _is_alive(self, pod, probe):
        port = pod.port_names[probe["tcpSocket"]["port"]]
        with socket.create_connection((HOST, port), timeout=5):
            return True

    def command(self, name, *arguments):
        """Runs a command as `kubectl exec job/census-chief -- paramserve ...` does."""
        (chief,) = self.pods_of("chief")
        return subprocess.run(
            self._helpers.paramserve(name, "--logdir", self._logdir / "job", *arguments),
            env={**os.environ, **chief.environment(self.secrets)},
            capture_output=True,
            text=True,
            timeout=self._helpers.patience_secs,
        )


@pytest.fixture
def cluster(deploy, tmp_path, helpers):
    with Cluster(deploy, tmp_path, helpers) as cluster:
        yield cluster


def test_a_job_is_applied_deleted_and_applied_again(cluster):
    cluster.apply(max_steps=100_000)
    cluster.wait(cluster.passes_probes, "a probe fails")
    cluster.wait(lambda: cluster.step() > 5, "no steps")
    status = cluster.command("status", "--json")
    assert json.loads(status.stdout)["phase"] == "training", status.stderr

    # Deleted: all pods are told at once. Tasks that the chief ends before they exit are done.
    cluster.send_sigterm()
    codes = cluster.exit_codes()
    for pod in cluster.pods:
        expected = {INTERRUPTED} if pod.role == "chief" else {0, PREEMPTED}
        assert codes[pod.name] in expected, cluster.logs()
    reached = cluster.result()
    assert reached["reason"] == "stopped"
    assert reached["checkpoint"].endswith(f"-{reached['global_step']}")

    # The chief comes last: with so few steps, a worker that starts late would find no chief.
    max_steps = reached["global_step"] + 20
    cluster.processes.clear()
    cluster.apply(max_steps, "ps", "worker")
    cluster.wait(lambda: cluster.passes_probes("ps", "worker"), "a task does not start")
    cluster.apply(max_steps, "chief")
    assert set(cluster.exit_codes().values()) == {0}, cluster.logs()
    result = cluster.result()
    assert result["reason"] == "max_steps"
    assert result["global_step"] >= max_steps
    assert "accuracy" in result["eval"]
    assert "restored" in cluster.logs()
