"""Log directories of any kind: read and written alike, and never half a file."""

import contextlib
import tempfile
import threading
import uuid
from pathlib import Path

import fsspec
import pytest
import tensorflow as tf

from paramserve.cluster.logdir.direct import DirectLogDirectory
from paramserve.cluster.logdir.errors import LOGDIR_ERRORS, remedy_for
from paramserve.cluster.logdir.interface import is_direct, open_logdir
from paramserve.cluster.logdir.staged import StagedLogDirectory
from paramserve.errors import UsageError


@pytest.fixture(autouse=True)
def temporary_files(tmp_path, monkeypatch):
    """Temporary files of a test are deleted with it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(params=["path", "ram", "memory", "local"])
def storage(request, tmp_path):
    """A log directory that does not exist yet, of each kind."""
    place = uuid.uuid4().hex
    logdir = {
        "path": str(tmp_path / "there" / "job"),
        "ram": f"ram://{place}/job",
        "memory": f"memory://{place}/job",
        "local": f"local://{tmp_path}/there/job",
    }[request.param]
    with contextlib.closing(open_logdir(logdir)) as storage:
        yield storage


def put(storage, name, content):
    """Writes a file with TensorFlow."""
    tf.io.gfile.makedirs(storage.directory)
    with tf.io.gfile.GFile(tf.io.gfile.join(storage.directory, name), "w") as file:
        file.write(content)


def test_what_tensorflow_reaches_is_used_in_place(tmp_path):
    assert isinstance(open_logdir(str(tmp_path)), DirectLogDirectory)
    assert [is_direct(name) for name in ("runs/x", "/runs/x", "gs://bucket/x", "file:///x")] == [
        True
    ] * 4
    assert [is_direct(name) for name in ("s3://bucket/x", "sftp://host/x")] == [False] * 2


def test_an_open_storage_is_taken_as_it_is(storage):
    assert open_logdir(storage) is storage


def test_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match=r"--logdir 'nowhere://x' cannot be reached: .*nowhere"):
        open_logdir("nowhere://x")


def test_before_anything_is_written_there_is_nothing(storage):
    assert storage.names() == []
    assert storage.read_text("job.json") is None
    storage.remove("job.json")


def test_small_files_are_written_read_and_removed(storage):
    storage.write_text("job.json", "first")
    storage.write_text("job.json", "second")
    storage.write_text("result.json", "third")
    assert storage.read_text("job.json") == "second"
    assert sorted(storage.names()) == ["job.json", "result.json"]
    assert storage.modified("job.json") > 1.7e9 or storage.logdir.startswith("ram")
    storage.remove("job.json", "not there")
    assert storage.names() == ["result.json"]


def test_what_tensorflow_writes_is_published_and_fetched(storage):
    put(storage, "data", "values")
    storage.publish("data")
    assert storage.names() == ["data"]
    storage.release("data")
    storage.fetch("data")
    with tf.io.gfile.GFile(tf.io.gfile.join(storage.directory, "data")) as file:
        assert file.read() == "values"


def test_a_file_can_be_put_out_of_the_way(storage):
    storage.write_text("data", "values")
    storage.move("data", "corrupt")
    assert storage.names() == ["corrupt"]
    storage.write_text("data", "other values")
    storage.move("data", "corrupt")
    assert storage.names() == ["corrupt"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    storage = StagedLogDirectory(f"local://{tmp_path}/job")
    contents = ["a" * 100_000, "b" * 100_000]
    storage.write_text("job.json", contents[0])
    done, seen = threading.Event(), set()

    def read():
        while not done.is_set():
            seen.add((tmp_path / "job" / "job.json").read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(100):
        storage.write_text("job.json", contents[i % 2])
    done.set()
    reader.join(30)
    assert seen <= set(contents)
    assert len(list((tmp_path / "job").iterdir())) == 1


# By way of this machine


@pytest.fixture
def staged(tmp_path):
    with contextlib.closing(StagedLogDirectory(f"local://{tmp_path}/job")) as storage:
        yield storage


def test_nothing_is_uploaded_twice(staged, tmp_path):
    put(staged, "data", "values")
    staged.publish("data")
    (tmp_path / "job" / "data").unlink()
    staged.publish("data")
    assert staged.names() == []
    put(staged, "data", "other values")
    staged.publish("data")
    assert staged.names() == ["data"]


def test_files_are_uploaded_in_the_order_given(staged, monkeypatch):
    order = []
    monkeypatch.setattr(staged._files, "put_file", lambda here, there: order.append(there[-1]))
    for name in ("c", "a", "b"):
        put(staged, name, "")
    staged.publish("c", "a", "b")
    assert order == ["c", "a", "b"]


def test_nothing_is_left_on_this_machine(staged):
    put(staged, "data", "values")
    staged.publish("data")
    staged.close()
    staged.close()
    assert not Path(staged.directory).exists()


def test_nor_of_what_was_only_read(staged, tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "data").write_text("values")
    staged.fetch("data")
    staged.close()
    assert not Path(staged.directory).exists()


def test_what_could_not_be_uploaded_is_left_on_this_machine(staged, caplog):
    put(staged, "data", "values")
    staged.close()
    assert Path(staged.directory, "data").read_text() == "values"
    assert f"left in {staged.directory}: ['data']" in caplog.text


def test_errors_of_all_libraries_are_alike(staged, monkeypatch):
    """Object stores raise errors of their own libraries."""

    class ClientError(Exception):
        pass

    def fail(*_, **__):
        raise ClientError("AccessDenied: no\nmore")

    for name in ("ls", "pipe_file", "put_file", "get_file", "cat_file", "rm_file", "mv"):
        monkeypatch.setattr(staged._files, name, fail)
    put(staged, "data", "values")
    for call in (
        staged.names,
        lambda: staged.write_text("data", ""),
        lambda: staged.publish("data"),
        lambda: staged.fetch("data"),
        lambda: staged.read_text("data"),
        lambda: staged.move("data", "corrupt"),
        lambda: staged.remove("data"),
    ):
        with pytest.raises(LOGDIR_ERRORS, match=rf"^{staged.logdir}.*: AccessDenied: no more$"):
            call()


def test_listings_are_never_old_ones(monkeypatch):
    """Some file systems cache the listing of a directory."""
    place = f"memory://{uuid.uuid4().hex}/job"
    storage = StagedLogDirectory(place)
    storage.write_text("a", "")
    forgotten = []
    monkeypatch.setattr(storage._files, "invalidate_cache", forgotten.append)
    storage.names()
    assert forgotten == [fsspec.core.url_to_fs(place)[1]]


# Helpers


def test_an_error_comes_with_its_remedy():
    def op(kind, text):
        return kind(None, None, text)

    assert "free space" in remedy_for(OSError(28, "No space left on device"))
    assert "free space" in remedy_for(op(tf.errors.ResourceExhaustedError, "No space left"))
    assert "writable" in remedy_for(OSError(30, "Read-only file system"))
    assert "writable" in remedy_for(op(tf.errors.PermissionDeniedError, "Permission denied"))
    assert "too slow" in remedy_for(TimeoutError())
    assert remedy_for(ValueError("other")) == ""
