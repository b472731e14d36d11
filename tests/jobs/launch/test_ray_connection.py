"""Addresses of Ray that a job cannot take, and the folder that it would send there."""

import pytest

from paramserve.errors import UsageError
from paramserve.jobs.launch import model_folder
from paramserve.jobs.launch.model_folder import survey
from paramserve.jobs.launch.ray import RayLauncher


@pytest.mark.parametrize("by_environment", [False, True], ids=["--ray-address", "RAY_ADDRESS"])
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", "no Ray cluster answers .*or give --ray-address local for one of"),
        ("[::1]:9", "no Ray cluster answers"),
        ("ray://127.0.0.1:10001", "inside the cluster.* --ray-address HOST:6379.*ray job submit"),
        (
            "http://127.0.0.1:8265",
            "of a dashboard.*`ray job submit --address http://127.0.0.1:8265",
        ),
    ],
)
def test_an_address_that_no_job_can_use_is_named_with_its_origin(
    monkeypatch, address, message, by_environment
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if by_environment:
        monkeypatch.setenv("RAY_ADDRESS", address)
    origin = "RAY_ADDRESS" if by_environment else "--ray-address"
    with pytest.raises(UsageError, match=message) as caught:
        RayLauncher(None if by_environment else address)
    assert str(caught.value).startswith(f"{origin} '{address}'")


def test_what_has_no_place_on_the_nodes_is_not_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(model_folder, "MAX_BYTES", 1 << 20)
    for name in (".git/objects", "env/lib", "models"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "pack").write_bytes(bytes(800_000))
    (tmp_path / "env" / "pyvenv.cfg").touch()

    found = survey(str(tmp_path))

    assert sorted(found.excludes) == ["/.git", "/env"]
    assert found.excess == ""


def test_a_folder_that_is_too_large_says_what_makes_it_so(tmp_path, monkeypatch):
    monkeypatch.setattr(model_folder, "MAX_BYTES", 1 << 20)
    (tmp_path / "data").mkdir()
    (tmp_path / "model.py").write_bytes(bytes(1000))
    (tmp_path / "data" / "train.csv").write_bytes(bytes(3 << 20))

    assert survey(str(tmp_path)).excess == "more than 1 MB, of which 3 MB are in 'data'"
