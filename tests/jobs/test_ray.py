"""Jobs on Ray: on a cluster of the job's own, and on one with several nodes."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from .conftest import LINEAR, MODELS, find_chief_or_none, last_error, result_of, step_of, until

RAY_NODES = Path(__file__).parent / "ray_nodes.py"


def test_an_embedded_ray_comes_and_goes_with_the_job(start, logdir):
    before = set(Path("/tmp").glob("paramserve-ray-*"))

    command = start("run", LINEAR, "--workers", 2, "--max-steps", 30, "--logdir", logdir)

    assert command.wait() == 0, command.output
    assert result_of(logdir)["examples"] == 30 * 2 * 20
    assert set(Path("/tmp").glob("paramserve-ray-*")) == before
    assert not [p for p in psutil.process_iter(["name"]) if p.info["name"] == "raylet"]


MODEL_THAT_TELLS = """
import os
import sys

sys.path.insert(0, {folder!r})
from linear import build as build_linear


def build(task):
    print(task.role, "has GPUs", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    return build_linear(task)
"""


def test_a_job_spreads_over_the_nodes_of_a_cluster(start, logdir, ray_cluster, tmp_path):
    """Two nodes with a logical GPU each: every worker is given one, the chief none."""
    model = tmp_path / "model" / "telling.py"
    model.parent.mkdir()
    model.write_text(MODEL_THAT_TELLS.format(folder=str(MODELS)))
    command = start(
        *("run", f"{model}:build", "--ray-address", ray_cluster, "--workers", 2, "--ps", 2),
        *("--gpus-per-worker", 1, "--max-steps", 100_000, "--logdir", logdir),
    )
    address = until(lambda: find_chief_or_none(logdir))
    until(lambda: step_of(address) >= 20)

    assert sorted(_tasks_of(address)) == ["ps", "ps", "worker", "worker"]
    for name, gpus in (("chief-0", "-1"), ("worker-0", "0"), ("worker-1", "0")):
        assert f"has GPUs {gpus}\n" in (logdir / "logs" / f"{name}.log").read_text()
    command.interrupt()
    assert command.wait() == 130
    until(lambda: not _tasks_of(address), "every process on the nodes has ended")


def _tasks_of(address):
    """Roles of the processes that talk to a chief."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "paramserve" in line and address in line:
            found.append(line[line.index("paramserve") + 1])
    return found


def test_a_ray_address_without_a_cluster_is_named(start, logdir):
    command = start("run", LINEAR, "--ray-address", "127.0.0.1:9", "--logdir", logdir)

    assert command.wait() == 2
    assert "--ray-address '127.0.0.1:9': no Ray cluster answers" in last_error(command)


@pytest.fixture
def ray_cluster(tmp_path):
    """The address of a Ray cluster with two nodes on this host."""
    address_file = tmp_path / "ray-address"
    with (tmp_path / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, RAY_NODES, address_file, tmp_path / "r"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        )
    try:
        yield until(lambda: address_file.exists() and address_file.read_text())
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.stdin.close()
        try:
            process.wait(30)
        finally:
            for child in family:
                if child.is_running():
                    child.kill()
            process.kill()
