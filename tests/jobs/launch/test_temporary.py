"""Temporary folders: whose they are, and when another process may remove them."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from paramserve.jobs.launch.temporary import TemporaryFolder

OWNER = """
import sys
from paramserve.jobs.launch.temporary import TemporaryFolder

print(TemporaryFolder("owned").path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    tempfile.tempdir = None


@pytest.fixture
def owner():
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def test_a_folder_goes_with_its_removal(folder):
    temporary = TemporaryFolder("task")
    Path(temporary.path, "file").touch()
    assert list(folder.iterdir()) == [Path(temporary.path)]
    for _ in range(2):
        temporary.remove()
        assert list(folder.iterdir()) == []


def test_the_folder_of_a_killed_owner_is_removed_and_that_of_a_live_one_is_not(owner, folder):
    left = Path(owner.stdout.readline().strip())
    (left / "file").touch()

    mine = TemporaryFolder("mine")
    assert left.exists()
    owner.kill()
    owner.wait()
    other = TemporaryFolder("other")

    assert {path.name for path in folder.iterdir()} == {
        Path(each.path).name for each in (mine, other)
    }
    mine.remove()
    other.remove()


def test_what_is_not_ours_stays(folder):
    (folder / "paramserve-4f2a").mkdir()  # Logs of a job, which people read later.
    (folder / "paramserve-tmp-file").write_text("no folder")
    (folder / "elsewhere").mkdir()
    (folder / "paramserve-tmp-link").symlink_to(folder / "elsewhere")

    TemporaryFolder("mine").remove()

    assert len(list(folder.iterdir())) == 4
