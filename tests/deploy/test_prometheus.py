"""Scraping, dashboard and alerts, against a real Prometheus that scrapes a real job."""

import json
import math
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
from pathlib import Path

import pytest
import yaml

from support.ports import free_port

INSTALL = "make test (it fetches it), or apt-get install --no-install-recommends prometheus"
POD_TARGETS = "pods.json"


@pytest.fixture(scope="module")
def find_program():
    """Returns the place of a program of Debian's package; fails if it is missing."""

    def find(name):
        path = shutil.which(name)
        return path or pytest.fail(f"{name} is not on the PATH: run {INSTALL}")

    return find


@pytest.fixture(scope="module")
def dashboard(deploy):
    return json.loads((deploy / "grafana/dashboards/paramserve.json").read_text())


class Prometheus:
    """The HTTP API of a running Prometheus."""

    def __init__(self, url, read_url):
        self._url = url
        self._read_url = read_url

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        return json.loads(self._read_url(f"{self._url}/api/v1/{path}?{query}"))["data"]

    def is_ready(self):
        return self._read_url(f"{self._url}/-/ready")

    def numbers(self, expression):
        """Returns the current values of an expression, without those that are not numbers."""
        try:
            series = self.get("query", query=expression)["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        values = [float(each["value"][1]) for each in series]
        return [value for value in values if not math.isnan(value)]

    def labels_of(self, scrape_job):
        """The labels of each target of a scrape job."""
        targets = self.get("targets", state="active")["activeTargets"]
        return [t["labels"] for t in targets if t["scrapePool"] == scrape_job]


@pytest.fixture(scope="module")
def prometheus(live_job, deploy, find_program, helpers):
    """Our configuration beside the runs folder, as in a checkout, only more eager to scrape."""
    folder = live_job.logdir.parents[1]
    config = folder / "deploy/prometheus/prometheus.yml"
    shutil.copytree(deploy / "prometheus", config.parent)
    settings = yaml.safe_load(config.read_text())
    settings["global"]["scrape_interval"] = "1s"
    settings["scrape_configs"].append(pod_scrape_config(deploy))
    config.write_text(yaml.safe_dump(settings))
    pods = [pod_as_discovered(task, address) for task, address in live_job.targets.items()]
    (config.parent / POD_TARGETS).write_text(json.dumps(pods))

    port = free_port()
    command = [
        find_program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "prometheus.log"
    with helpers.running(command, log):
        server = Prometheus(f"http://127.0.0.1:{port}", helpers.read_url)
        helpers.wait_until(server.is_ready, log.read_text)
        yield server


def pod_scrape_config(deploy):
    """The configuration for Kubernetes, with pods that are read from a file, without TLS.

    Debian's Prometheus is built without the discovery in Kubernetes. The job runs on loopback.
    """
    settings = yaml.safe_load((deploy / "kubernetes/prometheus.yml").read_text())
    (scrape,) = settings["scrape_configs"]
    for of_a_cluster in ("kubernetes_sd_configs", "scheme", "tls_config", "authorization"):
        del scrape[of_a_cluster]
    return scrape | {"job_name": "pods", "file_sd_configs": [{"files": [POD_TARGETS]}]}


def pod_as_discovered(task, address):
    """A process in the words of Prometheus's Kubernetes discovery."""
    role, index = task.split(":")
    host, port = address.split(":")
    meta = {
        "pod_ip": host,
        "pod_phase": "Succeeded" if task == "worker:1" else "Running",
        "pod_annotation_prometheus_io_scrape": "true",
        "pod_annotation_prometheus_io_port": port,
        "pod_label_app_kubernetes_io_instance": "census",
        "pod_label_app_kubernetes_io_component": role,
        "pod_label_batch_kubernetes_io_job_completion_index": index,
    }
    labels = {f"__meta_kubernetes_{name}": value for name, value in meta.items()}
    # Discovery offers a pod once for each port that it declares.
    return {"targets": [f"{host}:7077", f"{host}:2222"], "labels": labels}


def test_promtool_accepts_the_configuration(deploy, find_program):
    check = subprocess.run(
        [find_program("promtool"), "check", "config", deploy / "prometheus/prometheus.yml"],
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_alerts_are_raised_when_they_should_be(find_program):
    rules = Path(__file__).with_name("alerts_test.yml")
    check = subprocess.run(
        [find_program("promtool"), "test", "rules", rules], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_every_alert_is_tested(deploy):
    alerts = (deploy / "prometheus/alerts.yml").read_text()
    tests = Path(__file__).with_name("alerts_test.yml").read_text()
    names = re.findall(r"alert: (\w+)", alerts)
    assert names
    for name in names:
        assert re.search(rf"alertname: {name}\n\s+exp_alerts", tests), name


def test_targets_are_the_tasks_of_the_job(prometheus, live_job, helpers):
    expected = sorted(
        (*task.split(":"), address, live_job.job_id) for task, address in live_job.targets.items()
    )

    def found():
        labels = prometheus.labels_of("paramserve")
        return sorted((t["role"], t["index"], t["instance"], t["job_id"]) for t in labels)

    helpers.wait_until(lambda: found() == expected, lambda: f"{found()}, expected {expected}")


def test_every_panel_shows_data(prometheus, live_job, dashboard, helpers):
    missing = {
        f"{panel['title']} {target['refId']}": fill_in(target["expr"], live_job)
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }
    assert len(missing) > 20
    wait_for_numbers(prometheus, missing, helpers)


def test_every_alert_has_data_to_judge(prometheus, deploy, helpers):
    """An alert without a fault has no value, so its two sides are queried."""
    groups = yaml.safe_load((deploy / "prometheus/alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    compared = {rule["alert"]: re.fullmatch(r"(.+) (==|>) \d+", rule["expr"])[1] for rule in rules}
    wait_for_numbers(prometheus, compared, helpers)


def test_the_alerts_are_loaded_and_none_is_raised(prometheus, deploy):
    groups = yaml.safe_load((deploy / "prometheus/alerts.yml").read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]
    loaded = prometheus.get("rules")["groups"]
    assert [rule["name"] for group in loaded for rule in group["rules"]] == alerts
    assert [a for a in prometheus.get("alerts")["alerts"] if a["state"] == "firing"] == []


def test_the_dashboard_finds_the_job(prometheus, live_job, dashboard):
    variables = {v["name"]: v for v in dashboard["templating"]["list"]}
    query = variables["job_id"]["query"]["query"]
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", query).groups()
    assert live_job.job_id in prometheus.get(f"label/{label}/values", **{"match[]": metric})


def test_pods_are_found_by_their_annotations(prometheus, live_job, helpers):
    """Each pod is one target, at the port that it names; an ended pod is none."""
    running = {task: a for task, a in live_job.targets.items() if task != "worker:1"}
    expected = sorted((*task.split(":"), address, "census") for task, address in running.items())

    def found():
        labels = prometheus.labels_of("pods")
        return sorted((t["role"], t["index"], t["instance"], t["job_id"]) for t in labels)

    helpers.wait_until(lambda: found() == expected, lambda: f"{found()}, expected {expected}")
    workers_up = 'paramserve_tasks_up{job="pods", task_role="worker"}'
    wait_for_numbers(prometheus, {"workers up": workers_up}, helpers)


def fill_in(expression, live_job):
    """An expression as Grafana sends it, for this job."""
    filled = expression.replace("$job_id", live_job.job_id)
    filled = filled.replace("$__rate_interval", "10s")
    assert "$" not in filled, filled
    return filled


def wait_for_numbers(prometheus, expressions, helpers):
    """Returns when each expression has given numbers."""
    missing = dict(expressions)

    def all_answered():
        for name in list(missing):
            if prometheus.numbers(missing[name]):
                del missing[name]
        return not missing

    helpers.wait_until(all_answered, lambda: f"no data for {missing}", seconds=60)
