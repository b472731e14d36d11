"""The last state of a job whose chief could not write a result."""

import json

import pytest

from paramserve.cluster.status_client import find_chief
from paramserve.errors import UsageError
from paramserve.jobs.last_word import leave_result
from paramserve.jobs.options import JobOptions, JobResult


@pytest.fixture
def leave(tmp_path):
    def leave_error(error, job_id="b"):
        options = JobOptions(model="toy.py:build", logdir=str(tmp_path), num_workers=3)
        leave_result(options, job_id, read, error)

    def read(name):
        file = tmp_path / name
        return file.read_text() if file.exists() else None

    return leave_error


def write(tmp_path, name, **content):
    (tmp_path / name).write_text(json.dumps(content))


def test_status_says_why_the_job_failed_even_if_its_chief_was_killed(leave, tmp_path):
    write(tmp_path, "result.json", reason="max_steps", job_id="a")
    write(tmp_path, "job.json", address="127.0.0.1:9", job_id="b")
    leave("chief-0: killed by SIGKILL")
    result = JobResult.from_dict(json.loads((tmp_path / "result.json").read_text()))
    assert (result.reason, result.error) == ("failed", "chief-0: killed by SIGKILL")
    assert (result.workers, result.job_id) == (3, "b")
    with pytest.raises(UsageError, match="the last job here failed: chief-0: killed by SIGKILL"):
        find_chief(str(tmp_path))


def test_what_the_chief_wrote_itself_stays(leave, tmp_path):
    write(tmp_path, "result.json", error="the chief failed", job_id="b")
    leave("worker-0 failed")
    assert "the chief failed" in (tmp_path / "result.json").read_text()


def test_a_job_that_runs_there_keeps_its_files(leave, tmp_path):
    write(tmp_path, "job.json", address="127.0.0.1:9", job_id="other")
    leave("a job already runs")
    assert not (tmp_path / "result.json").exists()
    assert (tmp_path / "job.json").exists()
