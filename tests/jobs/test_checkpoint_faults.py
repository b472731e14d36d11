"""Jobs whose log directory is full, damaged, or somewhere else."""

import json
import os
import subprocess
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from paramserve.cluster.status_client import StatusClient, find_chief
from support.waiting import until

from .conftest import LINEAR, find_chief_or_none, last_error, result_of, status_of, step_of

SLOW = ("--param", "slow=0.02")


@pytest.fixture
def small_disk(logdir: Path):
    """The log directory is a disk of its own."""
    logdir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(logdir)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only the superuser can mount a small disk")
    yield logdir
    subprocess.run(["umount", "--lazy", str(logdir)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", 0) as file:
        while True:
            file.write(bytes(512))
    return filler


def detail_of(address: str) -> str:
    status = status_of(address)
    return status.detail if status else ""


def failures_of(logdir: Path) -> float:
    address = json.loads((logdir / "job.json").read_text())["metrics_address"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    [line] = [line for line in lines if line.startswith("paramserve_checkpoint_failures_total ")]
    return float(line.split()[1])


def test_a_full_disk_stops_no_training_but_does_not_end_well(start, small_disk):
    chief = start(
        *("chief", LINEAR, "--port", 0, "--logdir", small_disk, "--async"),
        *("--save-checkpoint-steps", 20, "--max-steps", 100_000, *SLOW),
    )
    address = until(lambda: find_chief_or_none(small_disk))
    start("ps", "--chief", address)
    start("worker", LINEAR, "--chief", address)
    until(lambda: status_of(address).checkpoint_step >= 20)

    filler = fill(small_disk)
    until(lambda: "No space left on device (free space" in detail_of(address))
    step = step_of(address)
    until(lambda: step_of(address) >= step + 40, "training continues")
    assert failures_of(small_disk) >= 1

    filler.unlink()
    until(lambda: status_of(address).checkpoint_step > step, "the next try goes well")
    assert status_of(address).detail == ""

    fill(small_disk)
    until(lambda: detail_of(address))
    whole = status_of(address).checkpoint
    with StatusClient(address) as client:
        client.stop()
    assert chief.wait() == 1
    assert "No space left on device" in last_error(chief)
    assert f"the newest whole one is {whole}" in last_error(chief)
    assert Path(f"{whole}.index").exists()


@pytest.mark.faults
def test_a_job_somewhere_else_goes_on_from_its_newest_whole_checkpoint(start, logdir):
    """`local://` is known to fsspec alone; so it stands for object stores here."""
    url = f"local://{logdir}"
    arguments = ("run", LINEAR, "--launcher", "process", "--workers", 1, "--logdir", url)
    options = ("--max-steps", 40, "--save-checkpoint-steps", 10, "--param", "slow=0.1")
    assert start(*arguments, *options).wait() == 0
    first = result_of(logdir)
    assert first["checkpoint"] == f"{url}/model.ckpt-40"
    assert first["eval"]["mse"] < 3
    names = sorted(path.name for path in logdir.iterdir())
    assert {"checkpoint", "model.ckpt-40.index", "result.json"} <= set(names)
    assert any("tfevents" in name for name in names)
    assert "job.json" not in names

    data = logdir / "model.ckpt-40.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-4] + b"gone")
    command = start(*arguments, "--max-steps", 100_000, *SLOW)
    until(lambda: find_chief_or_none(url))
    address = find_chief(url)
    until(lambda: "model.ckpt-40 is corrupt" in detail_of(address))
    assert status_of(address).checkpoint_step < 40
    until(lambda: step_of(address) > 60)
    command.interrupt()
    assert command.wait() == 130
    assert result_of(logdir)["examples"] == result_of(logdir)["global_step"] * 20
    assert (logdir / "corrupt" / "model.ckpt-40.index").exists()
