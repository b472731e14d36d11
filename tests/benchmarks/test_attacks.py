"""The benchmark of attacks: each of them reaches the chief, which answers others meanwhile."""

import asyncio
import contextlib

import pytest

from paramserve.benchmarks.attacks.app import KINDS, Window, ratio_table, ratios
from paramserve.benchmarks.attacks.attacker import Attacker
from paramserve.cluster.status_client import StatusClient
from support.control_plane import END_SECS, ControlPlane

PER_SEC = 100.0


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    plane = ControlPlane(tmp_path_factory.mktemp("attacked"))
    yield plane
    plane.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_a_chief_under_attack_answers(plane, kind):
    async def attack():
        attacker = Attacker(plane.address, PER_SEC)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await attacker.run(kind)
        return attacker.begun

    assert asyncio.run(attack()) > 1
    with StatusClient(plane.address, timeout_secs=END_SECS) as client:
        assert client.status().job_id == "job-1"


def test_an_attack_is_compared_with_the_quiet_windows_around_it():
    windows = [
        *(Window("", 100.0, 0.1, 10**9), Window("slow", 99.0, 0.2, 10**9)),
        *(Window("", 120.0, 0.1, 10**9), Window("http1", 60.0, 0.2, 2 * 10**9)),
        Window("", 120.0, 0.1, 10**9),
    ]
    assert ratios(windows) == {"slow": [0.9], "http1": [0.5]}
    columns = {column.header: list(column.cells) for column in ratio_table(windows).columns}
    assert columns["attack"] == ["none", "slow", "http1"]
    assert columns["of quiet"] == ["1.00", "0.90", "0.50"]
    assert columns[""] == ["reached", "reached", "missed"]
