"""A job whose tasks reach each other over IPv6, from TF_CONFIG and from flags."""

import ipaddress
import json
import urllib.request

import pytest

from paramserve.cluster.status_client import StatusClient
from support.ports import free_cluster
from support.waiting import until

from .conftest import LINEAR, find_chief_or_none, result_of, status_of, step_of


@pytest.fixture
def tf_config():
    """The environment of each task of a cluster on ::1."""
    roles = ("chief", "ps", "worker")
    cluster = free_cluster("::1", **dict.fromkeys(roles, 1))
    return {
        role: {
            "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": role, "index": 0}}),
        }
        for role in roles
    }


def test_tasks_find_each_other_over_ipv6(start, logdir, tf_config):
    """Beside those of TF_CONFIG: servers at an IPv4-mapped address, and at a name of two kinds."""
    options = ("--logdir", logdir, "--ps", 3, "--workers", 2, "--param", "slow=0.02")
    started = [start("chief", LINEAR, *options, env=tf_config["chief"])]
    address = until(lambda: find_chief_or_none(logdir))
    assert address == json.loads(tf_config["chief"]["TF_CONFIG"])["cluster"]["chief"][0]
    started += [
        start("ps", env=tf_config["ps"]),
        # The places of TF_CONFIG are the first ones, also if their processes come last.
        start("ps", "--index", 1, "--chief", address, "--host", "::ffff:127.0.0.1"),
        start("ps", "--index", 2, "--chief", address, "--host", "localhost"),
        start("worker", LINEAR, env=tf_config["worker"]),
        start("worker", LINEAR, "--index", 1, "--chief", address, "--host", "[::1]"),
    ]
    until(lambda: step_of(address) >= 5)

    tasks = status_of(address).tasks
    hosts = {task.address.rpartition(":")[0] for task in tasks}
    mapped = ipaddress.IPv6Address("::ffff:127.0.0.1")
    assert hosts == {"[::1]", f"[{mapped}]", "localhost"}
    for task in tasks:
        with urllib.request.urlopen(f"http://{task.metrics_address}/metrics", timeout=10) as page:
            assert b"process_resident_memory_bytes" in page.read()
    with StatusClient(address) as job:
        job.stop()
    assert [each.wait() for each in started] == [0] * len(started)
    assert result_of(logdir)["global_step"] >= 5
