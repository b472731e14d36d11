"""The checkpoint service: what it saves, when, and how it bears a disk that fails."""

import logging
import queue
import shutil
import threading
from contextlib import contextmanager

import pytest
import tensorflow as tf

from paramserve.chief.checkpoints import PAUSE_SECS, CheckpointService
from paramserve.chief.initialization import find_checkpoints, initialize
from paramserve.errors import JobFailed
from paramserve.model.loops import JobDefaults

WAIT_SECS = 30.0


class Model:
    """A built model with a session, and a checkpoint service of it."""

    def __init__(self, built, session, logdir, **options):
        self.built = built
        self.session = session
        self.logdir = str(logdir)
        self.known_step = 0
        self.saved = queue.Queue()
        options = {"every_secs": None, "every_steps": None, **options}
        initialize(built, session, self.logdir)
        self.service = CheckpointService(
            built,
            session,
            self.logdir,
            global_step=lambda: self.known_step,
            on_saved=self.saved.put,
            **options,
        )

    def train(self, steps):
        for _ in range(steps):
            self.session.run(self.built.train_op)
        self.known_step += steps

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
    model.train(1)  # Training goes on.


def test_the_timer_outlives_a_directory_that_cannot_be_written(make_model, logdir, caplog):
    model = make_model(every_steps=1)
    put_a_file_in_the_way(logdir)
    with caplog.at_level(logging.ERROR):
        model.service.start()
        model.train(1)
        with pytest.raises(queue.Empty):
            model.saved.get(timeout=1.0)
    assert "was not written" in caplog.text
    assert model.service.is_running
    logdir.unlink()
    logdir.mkdir()
    model.train(1)
    assert model.saved.get(timeout=WAIT_SECS).global_step == 2


def test_a_failed_try_is_not_repeated_until_the_next_one_is_due(make_model, logdir, caplog):
    model = make_model(every_steps=5)
    put_a_file_in_the_way(logdir)
    with caplog.at_level(logging.ERROR):
        model.service.start()
        model.train(5)
        with pytest.raises(queue.Empty):
            model.saved.get(timeout=1.0)
    assert caplog.text.count("was not written") == 1


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
