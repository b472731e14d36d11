"""The job's own files: each whole or not there, and none left when the job is over."""

import json
import os
import shutil
import threading

import pytest

from paramserve.chief.job_files import JobFiles
from paramserve.chief.membership.membership import Membership
from paramserve.cluster.spec import Role
from paramserve.cluster.status_client import find_chief
from paramserve.errors import JobFailed, UsageError
from paramserve.jobs.options import JobResult
from paramserve.protos import membership_pb2 as pb
from support.membership import register

RESULT = JobResult(7, 0.5, 70, 1.0, 7.0, {}, "model.ckpt-7", 2, 1, True, "max_steps", "runs/x")


@pytest.fixture
def logdir(tmp_path):
    return tmp_path / "runs" / "census"


@pytest.fixture
def files(logdir):
    files = JobFiles(str(logdir))
    files.prepare()
    return files


def make_membership(*tasks, num_ps=1):
    membership = Membership(num_ps=num_ps, lease_secs=10.0)
    for role, life, metrics_address in tasks:
        register(
            membership,
            role,
            address=f"{life}.host:1",
            incarnation=life,
            metrics_address=metrics_address,
        )
    return membership


def test_the_log_directory_is_made_and_left_empty(files, logdir):
    assert list(logdir.iterdir()) == []


def test_a_log_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    logdir = str(tmp_path / "file" / "census")
    with pytest.raises(UsageError) as caught:
        JobFiles(logdir).prepare()
    assert str(caught.value).startswith(f"--logdir '{logdir}' is not writable: ")
    assert "\n" not in str(caught.value)


def test_a_running_job_is_found_by_its_log_directory(files, logdir):
    with pytest.raises(UsageError, match=r"no job runs in .* is that the --logdir\?"):
        find_chief(str(logdir))
    files.announce("job-1", "10.0.0.7:7077", "10.0.0.7:9100")
    assert find_chief(str(logdir)) == "10.0.0.7:7077"
    assert json.loads((logdir / "job.json").read_text()) == {
        "job_id": "job-1",
        "address": "10.0.0.7:7077",
        "metrics_address": "10.0.0.7:9100",
        "pid": os.getpid(),
    }


def test_an_ended_job_leaves_only_its_result(files, logdir):
    files.announce("job-1", "10.0.0.7:7077", "")
    files.write_targets("job-1", "10.0.0.7:9100", make_membership())
    files.write_result(RESULT)
    files.withdraw()
    files.withdraw()
    assert [path.name for path in logdir.iterdir()] == ["result.json"]
    assert JobResult.from_dict(json.loads((logdir / "result.json").read_text())) == RESULT
    with pytest.raises(UsageError, match=r"the last one has ended, see result\.json there"):
        find_chief(str(logdir))


def test_files_of_any_kind_of_directory_are_found(tmp_path):
    logdir = f"local://{tmp_path}/job"
    files = JobFiles(logdir)
    files.prepare()
    files.announce("job-1", "10.0.0.7:7077", "")
    assert find_chief(logdir) == "10.0.0.7:7077"
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["job.json"]
    files.withdraw()
    with pytest.raises(UsageError, match=r"no job runs in 'local:.*is that the --logdir\?"):
        find_chief(logdir)


def test_a_directory_that_vanished_is_made_again(files, logdir):
    shutil.rmtree(logdir)
    files.write_result(RESULT)
    assert [path.name for path in logdir.iterdir()] == ["result.json"]


def test_a_result_that_cannot_be_written_fails_the_job(files, logdir):
    logdir.rmdir()
    logdir.write_text("in the way")
    with pytest.raises(JobFailed, match=r"result\.json was not written: .*in model\.ckpt-7$"):
        files.write_result(RESULT)


def test_a_directory_that_is_gone_does_not_hide_why_a_job_failed(files, logdir, caplog):
    logdir.rmdir()
    logdir.write_text("in the way")
    files.withdraw()
    assert "job.json stays in" in caplog.text


def test_a_file_that_cannot_be_understood_is_named(files, logdir):
    (logdir / "job.json").write_text("{")
    with pytest.raises(UsageError, match=r"job\.json cannot be read: "):
        find_chief(str(logdir))


def test_what_prometheus_should_scrape(files, logdir):
    membership = make_membership(
        (Role.PS, "p", "p.host:9"), (Role.WORKER, "a", "a.host:9"), (Role.WORKER, "b", "")
    )
    gone = register(
        membership, Role.WORKER, address="c.host:1", incarnation="c", metrics_address="c.host:9"
    )
    membership.leave(gone, "c", pb.LeaveRequest.DONE)
    files.write_targets("job-1", "chief.host:9", membership)
    targets = json.loads((logdir / "metrics_targets.json").read_text())
    assert [(t["targets"], t["labels"]["role"], t["labels"]["index"]) for t in targets] == [
        (["chief.host:9"], "chief", "0"),
        (["p.host:9"], "ps", "0"),
        (["a.host:9"], "worker", "0"),
    ]
    assert all("job-1" in target["labels"].values() for target in targets)


def test_a_reader_never_sees_half_a_file(files, logdir):
    """Tasks come and go while Prometheus and `paramserve status` read."""
    tasks = [(Role.WORKER, f"life-{i}", f"worker-{i}.host:9") for i in range(100)]
    memberships = [make_membership(), make_membership(*tasks)]
    files.write_targets("job-1", "chief.host:9", memberships[0])
    done = threading.Event()
    sizes = []

    def read():
        while not done.is_set():
            sizes.append(len(json.loads((logdir / "metrics_targets.json").read_text())))

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(200):
        files.write_targets("job-1", "chief.host:9", memberships[i % 2])
    done.set()
    reader.join(30)
    assert not reader.is_alive()
    assert sizes
    assert set(sizes) <= {1, 101}
    assert [path.name for path in logdir.iterdir()] == ["metrics_targets.json"]
