"""The events for TensorBoard: the job's own scalars, the model's summaries, evaluations."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
import uuid

import fsspec
import pytest
import tensorflow as tf

from paramserve.chief import summaries
from paramserve.chief.progress import Snapshot
from paramserve.chief.summaries import SummaryService

v1 = tf.compat.v1


@pytest.fixture(autouse=True)
def temporary_files(tmp_path, monkeypatch):
    """Temporary files of a test are deleted with it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def open_service(tmp_path):
    """Opens a service on the log directory; closes it when the test is over."""
    services = []

    def open_service(every_steps=10, logdir=tmp_path, retry_secs=0.0):
        graph = tf.Graph()
        with graph.as_default():
            v1.placeholder(tf.float32, name="the_models_input")
        service = SummaryService(str(logdir), graph, every_steps, retry_secs=retry_secs)
        services.append(service)
        return services[-1]

    yield open_service
    for service in services:
        service.close()


@pytest.fixture
def read_events(tmp_path):
    """The events of every file in the log directory, in order."""

    def read():
        files = sorted(tmp_path.glob("events.out.tfevents.*"))
        return [event for file in files for event in v1.train.summary_iterator(str(file))]

    return read


def scalars(events):
    """`{tag: {step: value}}`."""
    found = {}
    for event in events:
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = round(value.simple_value, 5)
    return found


def snapshot(step, **more):
    return Snapshot(
        **{
            "global_step": step,
            "examples": 10 * step,
            "steps_per_second": 4.0,
            "examples_per_second": 40.0,
            "loss": 1.0 / (step + 1),
            **more,
        }
    )


def test_loss_and_speed_can_be_read_back(open_service, read_events):
    service = open_service(every_steps=10)
    service.write_progress(snapshot(1, metrics={"accuracy": 0.5}))
    service.write_progress(snapshot(11, metrics={"accuracy": 0.75}))
    service.flush()
    assert scalars(read_events()) == {
        "loss": {1: 0.5, 11: round(1 / 12, 5)},
        "global_step/sec": {1: 4.0, 11: 4.0},
        "examples/sec": {1: 40.0, 11: 40.0},
        "metrics/accuracy": {1: 0.5, 11: 0.75},
    }


def test_scalars_are_written_every_so_many_steps(open_service, read_events):
    service = open_service(every_steps=10)
    for step in [0, 3, 9, 10, 12, 19, 25, 25, 34, 35]:
        service.write_progress(snapshot(step))
    service.flush()
    assert list(scalars(read_events())["loss"]) == [0, 10, 25, 35]


def test_the_last_step_is_written_even_if_it_is_not_due_but_not_twice(open_service, read_events):
    service = open_service(every_steps=10)
    service.write_progress(snapshot(10))
    service.write_progress(snapshot(13), force=True)
    service.write_progress(snapshot(13), force=True)
    service.flush()
    assert [e.step for e in read_events() if e.summary.value] == [10, 13]


def test_before_the_first_loss_there_is_nothing_to_write(open_service, read_events):
    service = open_service(every_steps=1)
    service.write_progress(snapshot(5, loss=None))
    service.flush()
    assert scalars(read_events()) == {}


def test_a_job_may_ask_for_no_scalars(open_service, read_events):
    service = open_service(every_steps=0)
    service.write_progress(snapshot(10), force=True)
    service.flush()
    assert scalars(read_events()) == {}


def test_a_models_own_summaries_keep_their_names(open_service, read_events):
    service = open_service()
    summary = v1.Summary(value=[v1.Summary.Value(tag="mine/margin", simple_value=2.5)])
    service.write_model_summary(summary.SerializeToString(), 42)
    service.flush()
    assert scalars(read_events()) == {"mine/margin": {42: 2.5}}


def test_evaluations_have_a_place_of_their_own(open_service, read_events):
    service = open_service()
    service.write_evaluation({"accuracy": 0.875, "auc": 0.5}, 100)
    service.flush()
    assert scalars(read_events()) == {"eval/accuracy": {100: 0.875}, "eval/auc": {100: 0.5}}


def test_a_run_that_goes_on_from_a_checkpoint_marks_its_start(open_service, read_events):
    """TensorBoard then drops events of earlier runs beyond that step."""
    service = open_service(every_steps=1)
    service.start_session(40)
    service.write_progress(snapshot(41))
    service.flush()
    marks = [(event.step, event.session_log.status) for event in read_events()]
    assert marks.index((40, v1.SessionLog.START)) < marks.index((41, 0))


def test_the_models_graph_is_shown(open_service, read_events):
    open_service().flush()
    graphs = [event.graph_def for event in read_events() if event.graph_def]
    assert b"the_models_input" in graphs[0]


def test_what_is_too_much_for_one_moment_is_all_written_in_the_end(open_service, read_events):
    service = open_service(every_steps=1)
    for step in range(500):
        service.write_progress(snapshot(step))
    service.close()
    service.close()
    assert list(scalars(read_events())["loss"]) == list(range(500))


# On a disk that takes nothing


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only the superuser can mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def events_of(disk):
    """The events of all files of a directory, up to where each can be read."""
    for file in sorted(disk.glob("events.out.tfevents.*")):
        with contextlib.suppress(tf.errors.DataLossError):
            yield from v1.train.summary_iterator(str(file))


def test_on_a_full_disk_events_are_lost_and_nothing_else(open_service, small_disk, caplog):
    service = open_service(every_steps=1, logdir=small_disk)
    service.write_progress(snapshot(1))
    service.flush()
    filler = small_disk / "filler"
    filler.write_bytes(bytes(200 * 1024))
    large = v1.Summary(value=[v1.Summary.Value(tag="large" * 20_000, simple_value=1.0)])
    for step in range(2, 5):
        service.write_model_summary(large.SerializeToString(), step)
        service.flush()
    assert caplog.text.count("events are not written to") == 1
    assert "No space left on device (free space there" in caplog.text
    filler.unlink()
    service.write_progress(snapshot(9))
    service.close()
    loss = scalars(events_of(small_disk))["loss"]
    assert {1, 9} <= set(loss)


def test_a_directory_that_vanished_is_made_again(open_service, tmp_path, read_events):
    logdir = tmp_path / "events"
    service = open_service(every_steps=1, logdir=logdir)
    service.write_progress(snapshot(1))
    service.flush()
    shutil.rmtree(logdir)
    service.write_progress(snapshot(2))
    service.flush()  # Now it is noticed.
    service.write_progress(snapshot(3))
    service.close()
    events = list(events_of(logdir))
    assert list(scalars(events)["loss"]) == [3]
    assert any(b"the_models_input" in event.graph_def for event in events)


def test_after_an_error_the_disk_is_left_in_peace_for_a_while(open_service, tmp_path):
    logdir = tmp_path / "events"
    logdir.write_text("in the way")
    service = open_service(every_steps=1, logdir=logdir, retry_secs=3600.0)
    service.flush()
    logdir.unlink()
    service.write_progress(snapshot(1))
    service.close()
    assert not logdir.exists()


def test_a_disk_that_hangs_holds_nobody_up(open_service, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(summaries, "MAX_WAITING", 5)
    monkeypatch.setattr(summaries, "MAX_WAIT_SECS", 0.2)
    service = open_service(every_steps=1)
    service.flush()
    let_go = threading.Event()
    monkeypatch.setattr(service._files, "write", lambda event: let_go.wait(30))
    began = time.monotonic()
    for step in range(100):
        service.write_progress(snapshot(step))
    service.flush()
    service.close()
    assert time.monotonic() - began < 20
    assert "slow" in caplog.text
    let_go.set()


def test_events_reach_a_directory_that_only_fsspec_knows(open_service, tmp_path):
    logdir = f"memory://{uuid.uuid4().hex}/job"
    service = open_service(every_steps=1, logdir=logdir)
    service.write_progress(snapshot(1))
    service.flush()
    service.write_progress(snapshot(2))
    service.close()
    files, root = fsspec.core.url_to_fs(logdir)
    files.get(root, str(tmp_path / "copy"), recursive=True)
    assert list(scalars(events_of(tmp_path / "copy"))["loss"]) == [1, 2]
