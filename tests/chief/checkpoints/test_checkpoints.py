"""The checkpoint service: the contents and times of checkpoints, and disks that fail."""

import json
import os
import queue
import shutil
import subprocess
import threading
from contextlib import contextmanager, suppress

import pytest
import tensorflow as tf

from paramserve.chief.checkpoints import checkpoints
from paramserve.chief.checkpoints.checkpoints import PAUSE_SECS, CheckpointService, SaveSchedule
from paramserve.chief.checkpoints.files import find_checkpoints
from paramserve.chief.checkpoints.initialization import initialize
from paramserve.errors import JobFailed
from paramserve.model.job_options import JobDefaults

WAIT_SECS = 30.0
PARTS = ("data-00000-of-00001", "index")


class Model:
    """A built model with a session, and a checkpoint service of it."""

    def __init__(self, built, session, logdir, **options):
        self.built = built
        self.session = session
        self.logdir = str(logdir)
        self.known_step = 0
        self.saved = queue.Queue()
        self.failed = queue.Queue()
        parts = {name: options.pop(name) for name in ("paused", "sidecar") if name in options}
        schedule = SaveSchedule(lambda: self.known_step, **{"retry_secs": 0.2, **options})
        self.restored = initialize(built, session, self.logdir)
        self.service = CheckpointService(
            built,
            session,
            self.logdir,
            schedule,
            on_saved=self.saved.put,
            on_failed=self.failed.put,
            **parts,
        )

    def train(self, steps):
        for _ in range(steps):
            self.session.run(self.built.train_op)
        self.known_step += steps

    @property
    def weight(self):
        tensor = self.built.graph.get_tensor_by_name("w/Read/ReadVariableOp:0")
        return self.session.run(tensor).tolist()

    @property
    def steps_on_disk(self):
        return [step for step, _ in find_checkpoints(self.logdir)]


@pytest.fixture
def make_model(build_graph, counting_model, cluster, tmp_path):
    models = []

    def make(*, keep_checkpoints=5, sync=False, **options):
        built = build_graph(
            counting_model, sync=sync, defaults=JobDefaults(keep_checkpoints=keep_checkpoints)
        )
        models.append(Model(built, cluster.session(built.graph), tmp_path / "log", **options))
        return models[-1]

    yield make
    for model in models:
        if model.service.is_running:
            model.service.stop()


@pytest.fixture(autouse=True)
def logdir(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


# Saving


@pytest.mark.parametrize("sync", [False, True])
def test_a_checkpoint_has_the_models_own_names_and_values(make_model, sync):
    model = make_model(sync=sync)
    saved = model.service.save()
    assert sorted(tf.train.list_variables(saved.path)) == [
        ("global_step", []),
        ("paramserve/examples", []),
        ("w", [3]),
        ("w/Momentum", [3]),
    ]


def test_any_reader_of_tensorflow_can_read_it(make_model):
    model = make_model()
    model.train(4)
    saved = model.service.save()
    assert (saved.path, saved.global_step) == (f"{model.logdir}/model.ckpt-4", 4)
    assert saved.seconds > 0
    assert tf.train.latest_checkpoint(model.logdir) == saved.path
    reader = tf.train.load_checkpoint(saved.path)
    assert reader.get_tensor("w").tolist() == [-4.0] * 3
    assert (reader.get_tensor("global_step"), reader.get_tensor("paramserve/examples")) == (4, 20)
    assert model.saved.get_nowait() == saved


def test_a_log_directory_that_moved_is_still_read(make_model, tmp_path):
    saved = make_model().service.save()
    moved = shutil.move(tmp_path / "log", tmp_path / "elsewhere")
    found = tf.train.latest_checkpoint(str(moved))
    assert found == f"{moved}/{saved.path.rpartition('/')[2]}"


def test_at_the_same_step_there_is_nothing_to_save(make_model):
    model = make_model()
    model.train(1)
    first = model.service.save()
    assert model.service.save() is first
    assert model.saved.qsize() == 1
    model.train(1)
    assert model.service.save().global_step == 2


def test_only_the_newest_are_kept(make_model):
    model = make_model(keep_checkpoints=2)
    for _ in range(4):
        model.train(1)
        model.service.save()
    assert model.steps_on_disk == [4, 3]


def test_zero_keeps_all(make_model):
    model = make_model(keep_checkpoints=0)
    for _ in range(7):
        model.train(1)
        model.service.save()
    assert model.steps_on_disk == [7, 6, 5, 4, 3, 2, 1]


def test_training_is_held_while_it_saves_unless_it_is_over(make_model):
    held = []

    @contextmanager
    def paused(timeout_secs):
        held.append(timeout_secs)
        assert model.steps_on_disk == []
        yield True
        assert model.steps_on_disk == [1]

    model = make_model(paused=paused)
    model.train(1)
    model.service.save()
    assert held == [PAUSE_SECS]
    model.train(1)
    model.service.save(quiet=True)
    assert held == [PAUSE_SECS]


def test_two_who_ask_at_once_get_the_same_checkpoint(make_model):
    model = make_model()
    model.train(1)
    results = queue.Queue()
    threads = [threading.Thread(target=lambda: results.put(model.service.save())) for _ in range(4)]
    for thread in threads:
        thread.start()
    saved = [results.get(timeout=WAIT_SECS) for _ in threads]
    assert len({id(checkpoint) for checkpoint in saved}) == 1
    assert model.saved.qsize() == 1


# On a timer


def test_it_saves_every_so_many_steps(make_model):
    model = make_model(every_steps=10)
    model.service.start()
    model.train(9)
    with pytest.raises(queue.Empty):
        model.saved.get(timeout=0.5)
    model.train(1)
    assert model.saved.get(timeout=WAIT_SECS).global_step == 10
    model.train(12)
    assert model.saved.get(timeout=WAIT_SECS).global_step == 22
    model.service.stop()
    assert not model.service.is_running


def test_it_saves_every_so_many_seconds_if_there_is_something_new(make_model):
    model = make_model(every_secs=0.2)
    model.service.start()
    with pytest.raises(queue.Empty):
        model.saved.get(timeout=0.6)
    model.train(3)
    assert model.saved.get(timeout=WAIT_SECS).global_step == 3
    with pytest.raises(queue.Empty):
        model.saved.get(timeout=0.6)


def test_without_either_it_saves_only_when_asked(make_model):
    model = make_model()
    model.service.start()
    model.train(100)
    with pytest.raises(queue.Empty):
        model.saved.get(timeout=0.5)
    assert model.service.save().global_step == 100


# The files beside the model


def sidecars(logdir):
    return sorted(path.name for path in logdir.glob("*.job.json"))


def test_the_state_of_the_job_is_that_of_the_moment_and_comes_back(make_model, logdir):
    held = threading.Event()

    @contextmanager
    def paused(timeout_secs):
        held.set()
        yield True
        held.clear()

    def sidecar():
        assert held.is_set()
        return {"done": list(range(model.known_step)), "generation": 1}

    model = make_model(paused=paused, sidecar=sidecar)
    model.train(3)
    saved = model.service.save()
    assert saved.sidecar == {"done": [0, 1, 2], "generation": 1}
    assert sidecars(logdir) == ["model.ckpt-3.job.json"]
    model.train(2)
    assert initialize(model.built, model.session, model.logdir).sidecar == saved.sidecar


def test_it_is_there_before_the_checkpoint_counts(make_model, logdir, monkeypatch):
    model = make_model(sidecar=lambda: {"shards": 7})

    def die(*_, **__):
        assert sidecars(logdir) == ["model.ckpt-0.job.json"]
        raise OSError("killed")

    monkeypatch.setattr(model.built.saver, "save", die)
    with pytest.raises(JobFailed, match="killed"):
        model.service.save()
    assert sidecars(logdir) == []
    assert model.steps_on_disk == []


def test_it_goes_with_its_checkpoint(make_model, logdir):
    model = make_model(keep_checkpoints=2, sidecar=dict)
    for _ in range(4):
        model.train(1)
        model.service.save()
    assert sidecars(logdir) == ["model.ckpt-3.job.json", "model.ckpt-4.job.json"]


def test_a_checkpoint_without_is_restored_all_the_same(make_model):
    model = make_model()
    model.train(2)
    model.service.save()
    restored = initialize(model.built, model.session, model.logdir)
    assert (restored.global_step, restored.sidecar) == (2, None)


# Failing


def put_a_file_in_the_way(logdir):
    """Makes the directory unwritable for everybody, the superuser included."""
    shutil.rmtree(logdir)
    logdir.write_text("a file")


def test_a_directory_that_cannot_be_written_is_an_error_of_one_line(make_model, logdir):
    model = make_model()
    model.train(1)
    put_a_file_in_the_way(logdir)
    with pytest.raises(JobFailed) as caught:
        model.service.save()
    message = str(caught.value)
    assert message.startswith(f"the checkpoint at {model.logdir}/model.ckpt was not written: ")
    assert not message.endswith(": ")
    assert "\n" not in message
    model.train(1)  # Training continues.


def test_the_timer_tries_again_until_it_goes_well(make_model, logdir, caplog):
    model = make_model(every_steps=1)
    put_a_file_in_the_way(logdir)
    model.service.start()
    model.train(1)
    for _ in range(2):
        assert "was not written" in str(model.failed.get(timeout=WAIT_SECS))
    assert caplog.text.count("the next try is in") >= 1
    logdir.unlink()
    logdir.mkdir()
    assert model.saved.get(timeout=WAIT_SECS).global_step == 1  # Without another step.


def test_it_tries_less_and_less_often(make_model, logdir):
    """After 0.2, 0.4, 0.8 seconds and so on: no more than four tries in two seconds."""
    model = make_model(every_steps=1)
    put_a_file_in_the_way(logdir)
    model.service.start()
    model.train(1)
    threading.Event().wait(2.0)
    assert 2 <= model.failed.qsize() <= 4


def test_without_a_timer_a_failed_try_is_not_repeated(make_model, logdir):
    model = make_model()
    model.service.start()
    put_a_file_in_the_way(logdir)
    with pytest.raises(JobFailed):
        model.service.save()
    model.failed.get(timeout=WAIT_SECS)
    with pytest.raises(queue.Empty):
        model.failed.get(timeout=1.0)


def test_an_error_says_which_checkpoint_is_still_good(make_model, logdir):
    model = make_model()
    put_a_file_in_the_way(logdir)
    with pytest.raises(JobFailed, match="there is no whole one yet"):
        model.service.save()
    logdir.unlink()
    saved = model.service.save()
    model.train(1)
    put_a_file_in_the_way(logdir)
    with pytest.raises(JobFailed, match=f"the newest whole one is {saved.path}$"):
        model.service.save()


def test_a_run_that_goes_on_knows_the_one_it_began_with(make_model):
    make_model().service.save()
    model = make_model()
    model.service.start(model.restored)
    assert model.service.save() is model.restored


@pytest.fixture
def small_disk(logdir):
    """Makes the log directory a disk of its own."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(logdir)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only the superuser can mount a small disk")
    yield logdir
    subprocess.run(["umount", "--lazy", str(logdir)], check=True)


def fill(disk):
    with suppress(OSError), (disk / "filler").open("wb", 0) as filler:
        while True:
            filler.write(bytes(4096))


def test_a_full_disk_stops_checkpoints_only(make_model, small_disk):
    model = make_model(every_steps=1, sidecar=lambda: {"shards": 1})
    model.train(1)
    whole = model.service.save()
    fill(small_disk)
    model.service.start()
    model.train(2)
    message = str(model.failed.get(timeout=WAIT_SECS))
    assert "No space left on device (free space there, or keep fewer checkpoints)" in message
    assert f"the newest whole one is {whole.path}" in message
    model.train(2)
    assert model.weight == [-5.0] * 3
    (small_disk / "filler").unlink()
    assert [model.saved.get(timeout=WAIT_SECS).global_step for _ in range(2)] == [1, 5]
    assert sorted(path.name for path in small_disk.iterdir()) == [
        "checkpoint",
        *(f"model.ckpt-{n}.{end}" for n in (1, 5) for end in (*PARTS, "job.json")),
    ]


def test_a_disk_that_is_read_only_is_named(make_model, small_disk):
    model = make_model()
    model.service.save()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    model.train(1)
    with pytest.raises(JobFailed, match=r"Read-only file system \(make the directory writable\)"):
        model.service.save()
    assert initialize(model.built, model.session, model.logdir).global_step == 0


def test_a_directory_that_vanished_is_made_again(make_model, logdir):
    model = make_model(sidecar=lambda: {"shards": 1})
    model.train(1)
    first = model.service.save()
    shutil.rmtree(logdir)
    again = model.service.save()  # Of the same step, which is on no disk any more.
    assert again.path == first.path
    assert sorted(path.name for path in logdir.iterdir()) == [
        "checkpoint",
        "model.ckpt-1.data-00000-of-00001",
        "model.ckpt-1.index",
        "model.ckpt-1.job.json",
    ]
    assert json.loads((logdir / "model.ckpt-1.job.json").read_text())["job"] == {"shards": 1}


# Hanging


@pytest.fixture
def hang(monkeypatch):
    """Makes the next save of a model hang until it is released."""
    let_go = threading.Event()

    def make_hang(model):
        save = model.built.saver.save

        def hang(*args, **kwargs):
            monkeypatch.setattr(model.built.saver, "save", save)
            assert let_go.wait(WAIT_SECS)
            return save(*args, **kwargs)

        monkeypatch.setattr(model.built.saver, "save", hang)
        return let_go

    yield make_hang
    let_go.set()


def test_a_disk_that_hangs_holds_training_no_longer_than_needed(make_model, hang, monkeypatch):
    monkeypatch.setattr(checkpoints, "HOLD_SECS", 0.2)
    let_go_of_training = threading.Event()

    @contextmanager
    def paused(timeout_secs):
        yield True
        let_go_of_training.set()

    model = make_model(paused=paused, every_steps=1, max_wait_secs=WAIT_SECS)
    let_go_of_disk = hang(model)
    model.service.start()
    model.train(1)
    assert let_go_of_training.wait(WAIT_SECS)
    assert model.saved.empty()
    let_go_of_disk.set()
    assert model.saved.get(timeout=WAIT_SECS).global_step == 1


def test_a_save_that_takes_too_long_has_failed_but_may_still_come_true(make_model, hang):
    model = make_model()
    model.train(1)
    let_go = hang(model)
    with pytest.raises(JobFailed, match=r"takes longer than 0\.3 s .*disk or the network too slow"):
        model.service.save(max_wait_secs=0.3)
    with pytest.raises(JobFailed, match="the former one has not ended yet"):
        model.service.save()
    assert model.failed.qsize() == 2
    let_go.set()
    assert model.saved.get(timeout=WAIT_SECS).global_step == 1
    model.train(1)
    assert model.service.save().global_step == 2


def test_the_end_does_not_wait_for_a_save_that_hangs(make_model, hang):
    model = make_model(every_steps=1, max_wait_secs=WAIT_SECS)
    hang(model)
    model.service.start()
    model.train(1)
    model.service.stop(max_wait_secs=0.2)
    assert model.saved.empty()


def test_the_timer_ends_with_its_session(make_model):
    model = make_model(every_steps=1)
    model.service.start()
    model.train(1)
    assert model.saved.get(timeout=WAIT_SECS).global_step == 1
    model.session.close()
    model.known_step += 1
    deadline = threading.Event()
    for _ in range(300):
        if not model.service.is_running:
            break
        deadline.wait(0.1)
    assert not model.service.is_running
