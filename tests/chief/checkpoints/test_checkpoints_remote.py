"""Checkpoints where TensorFlow has a file system for, and where only fsspec has one."""

import contextlib
import shutil
import tempfile
import uuid
from pathlib import Path

import pytest
import tensorflow as tf

from paramserve.chief.checkpoints.checkpoints import CheckpointService, SaveSchedule
from paramserve.chief.checkpoints.files import find_checkpoints, local_path
from paramserve.chief.checkpoints.initialization import initialize
from paramserve.cluster.logdir.interface import open_logdir
from paramserve.errors import JobFailed
from paramserve.model.job_options import JobDefaults


@pytest.fixture(autouse=True)
def temporary_files(tmp_path, monkeypatch):
    """Temporary files of a test are deleted with it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(params=["ram", "memory", "local"])
def logdir(request, tmp_path):
    place = uuid.uuid4().hex
    return {
        "ram": f"ram://{place}/job",
        "memory": f"memory://{place}/job",
        "local": f"local://{tmp_path}/job",
    }[request.param]


@pytest.fixture
def open_job(build_graph, counting_model, cluster):
    """Opens a run of a job in a log directory: its graph, session, storage and services."""
    storages = []

    def open_job(logdir, *, keep_checkpoints=5):
        cluster.reset()
        built = build_graph(counting_model, defaults=JobDefaults(keep_checkpoints=keep_checkpoints))
        session = cluster.session(built.graph)
        storages.append(open_logdir(logdir))
        restored = initialize(built, session, storages[-1])
        step = restored.global_step if restored else 0
        service = CheckpointService(
            *(built, session, storages[-1], SaveSchedule(lambda: step)),
            sidecar=lambda: {"examples": int(session.run(built.examples))},
        )
        return built, session, storages[-1], service, restored

    yield open_job
    for storage in storages:
        storage.close()


def steps_in(logdir):
    return [step for step, _ in find_checkpoints(logdir)]


def test_a_run_goes_on_from_what_an_earlier_one_has_saved(open_job, logdir):
    built, session, _, service, restored = open_job(logdir)
    assert restored is None
    for _ in range(3):
        session.run(built.train_op)
    saved = service.save()
    assert saved.path == f"{logdir}/model.ckpt-3"

    built, session, storage, _, restored = open_job(logdir)
    assert restored.path == saved.path
    assert (restored.global_step, restored.sidecar) == (3, {"examples": 15})
    weight = built.graph.get_tensor_by_name("w/Read/ReadVariableOp:0")
    assert session.run(weight).tolist() == [-3.0] * 3
    reader = tf.compat.v1.train.NewCheckpointReader(local_path(storage, 3))
    assert reader.get_tensor("w").tolist() == [-3.0] * 3


def test_only_the_newest_are_kept_those_of_earlier_runs_included(open_job, logdir):
    for _ in range(2):
        built, session, storage, service, _ = open_job(logdir, keep_checkpoints=2)
        for _ in range(2):
            session.run(built.train_op)
            service.save()
    assert steps_in(logdir) == [4, 3]
    names = [name for name in storage.names() if "ckpt" in name]
    assert sorted(names) == [
        f"model.ckpt-{step}.{end}"
        for step in (3, 4)
        for end in ("data-00000-of-00001", "index", "job.json")
    ]


def test_a_corrupt_newest_is_set_aside_there(open_job, logdir):
    built, session, storage, service, _ = open_job(logdir)
    for _ in range(2):
        session.run(built.train_op)
        service.save()
    storage.write_text("model.ckpt-2.data-00000-of-00001", "nonsense")

    _, _, storage, _, restored = open_job(logdir)
    assert restored.global_step == 1
    assert steps_in(logdir) == [1]
    assert "corrupt" in storage.names()
    assert "model.ckpt-1" in storage.read_text("checkpoint")


@pytest.fixture
def local_logdir(tmp_path):
    return f"local://{tmp_path}/job"


def test_a_half_uploaded_checkpoint_does_not_count(open_job, local_logdir, monkeypatch):
    built, session, storage, service, _ = open_job(local_logdir)
    service.save()
    session.run(built.train_op)
    put_file = storage._files.put_file

    def lose_connection(here, there):
        if there.endswith(".index"):
            raise ConnectionResetError("connection reset by peer")
        put_file(here, there)

    monkeypatch.setattr(storage._files, "put_file", lose_connection)
    with pytest.raises(JobFailed, match="connection reset by peer; the newest whole one is local:"):
        service.save()
    assert steps_in(local_logdir) == [0]
    assert "model.ckpt-1.data-00000-of-00001" in storage.names()

    *_, restored = open_job(local_logdir)
    assert restored.global_step == 0
    assert "model.ckpt-1.data-00000-of-00001" not in storage.names()


def test_what_was_not_uploaded_is_not_lost(open_job, local_logdir, monkeypatch):
    """The next save takes its place, and until then it is on this machine."""
    built, session, storage, service, _ = open_job(local_logdir)
    session.run(built.train_op)
    put_file = storage._files.put_file
    monkeypatch.setattr(storage._files, "put_file", lambda *_: 1 / 0)
    with pytest.raises(JobFailed):
        service.save()
    with contextlib.closing(storage):
        assert (
            tf.compat.v1.train.NewCheckpointReader(local_path(storage, 1)).get_tensor("global_step")
            == 1
        )
    monkeypatch.setattr(storage._files, "put_file", put_file)
    assert service.save().global_step == 1
    assert steps_in(local_logdir) == [1]


def test_this_machine_keeps_one_checkpoint_only(open_job, local_logdir):
    built, session, storage, service, _ = open_job(local_logdir)
    for _ in range(3):
        session.run(built.train_op)
        service.save()
    indices = [path.name for path in Path(storage.directory).glob("*.index")]
    assert indices == ["model.ckpt-3.index"]
    assert steps_in(local_logdir) == [3, 2, 1]


def test_a_copy_of_the_directory_is_an_ordinary_one(open_job, local_logdir, tmp_path):
    built, session, _, service, _ = open_job(local_logdir)
    session.run(built.train_op)
    service.save()
    copy = shutil.copytree(tmp_path / "job", tmp_path / "copy")
    assert tf.train.latest_checkpoint(str(copy)) == f"{copy}/model.ckpt-1"
