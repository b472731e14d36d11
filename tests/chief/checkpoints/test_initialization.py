"""Fresh starts, and restoring the newest checkpoint that is whole."""

import dataclasses
import logging
from pathlib import Path

import pytest
import tensorflow as tf

from paramserve.chief.checkpoints.files import find_checkpoints, write_sidecar
from paramserve.chief.checkpoints.initialization import adopt, initialize
from paramserve.cluster.logdir.direct import DirectLogDirectory
from paramserve.errors import JobFailed
from paramserve.model.job_options import JobDefaults
from paramserve.model.spec import TrainSpec

v1 = tf.compat.v1


@pytest.fixture
def logdir(tmp_path):
    return str(tmp_path)


@pytest.fixture
def built(build_graph, counting_model):
    return build_graph(counting_model)


@pytest.fixture
def session(cluster, built):
    return cluster.session(built.graph)


@pytest.fixture
def write_checkpoints(built, session, logdir):
    """Trains and saves at these global steps; leaves the servers with other values."""

    def write(*steps):
        session.run([built.init_op, built.local_init_op])
        for step in steps:
            while session.run(built.global_step) < step:
                session.run(built.train_op)
            with built.graph.as_default():
                built.saver.save(
                    session, f"{logdir}/model.ckpt", global_step=step, write_meta_graph=False
                )
        session.run(built.train_op)

    return write


def truncate(path):
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def flip(path, offset):
    content = bytearray(Path(path).read_bytes())
    content[offset] ^= 0x04
    Path(path).write_bytes(content)


def damage(checkpoint, fault):
    """Damages a checkpoint as a killed process or a bad disk does."""
    data, index = Path(f"{checkpoint}.data-00000-of-00001"), Path(f"{checkpoint}.index")
    sidecar = Path(f"{checkpoint}.job.json")
    match fault:
        case "truncated data":
            truncate(data)
        case "flipped data":
            flip(data, -1)  # Of the variable that is restored last.
        case "no data":
            data.unlink()
        case "empty index":
            index.write_bytes(b"")
        case "truncated index":
            truncate(index)
        case "flipped index":
            flip(index, 20)
        case "flipped sidecar":
            write_sidecar(DirectLogDirectory(str(checkpoint.parent)), 10, {"shards": [1000]})
            flip(sidecar, sidecar.read_text().index("1000"))


def weight(built, session):
    tensor = built.graph.get_tensor_by_name("w/Read/ReadVariableOp:0")
    return session.run(tensor).tolist()


def test_checkpoints_are_found_newest_first_by_number(logdir, tmp_path):
    for name in (
        *("model.ckpt-9.index", "model.ckpt-100.index", "model.ckpt-20.index"),
        "model.ckpt-300.data-00000-of-00001",  # Its index was never written.
        "model.ckpt-400.index.tempstate123",
        "other.ckpt-500.index",
        "checkpoint",
    ):
        (tmp_path / name).touch()
    assert find_checkpoints(logdir) == [
        (step, f"{logdir}/model.ckpt-{step}") for step in (100, 20, 9)
    ]


def test_a_directory_without_any_has_none(tmp_path):
    assert find_checkpoints(str(tmp_path)) == []
    assert find_checkpoints(str(tmp_path / "not there")) == []


def test_a_fresh_start_initializes_everything(built, session, logdir):
    assert initialize(built, session, logdir) is None
    assert len(session.run(built.uninitialized)) == 0
    assert session.run([built.global_step, built.examples]) == [0, 0]
    assert weight(built, session) == [0.0] * 3


def test_the_newest_checkpoint_is_restored(built, session, logdir, write_checkpoints):
    write_checkpoints(2, 10)
    restored = initialize(built, session, logdir)
    assert (restored.path, restored.global_step) == (f"{logdir}/model.ckpt-10", 10)
    assert restored.written == pytest.approx(Path(f"{restored.path}.index").stat().st_mtime)
    assert session.run([built.global_step, built.examples]) == [10, 50]
    assert weight(built, session) == [-10.0] * 3


FAULTS = [
    *("truncated data", "flipped data", "no data"),
    *("truncated index", "flipped index", "empty index", "flipped sidecar"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_torn_checkpoint_is_passed_over_with_its_reason(
    built, session, logdir, write_checkpoints, caplog, fault
):
    write_checkpoints(2, 5, 10)
    newest = Path(f"{logdir}/model.ckpt-10")
    damage(newest, fault)
    with caplog.at_level(logging.WARNING):
        assert initialize(built, session, logdir).path == f"{logdir}/model.ckpt-5"
    assert session.run([built.global_step, built.examples]) == [5, 25]
    assert weight(built, session) == [-5.0] * 3
    [line] = [r.getMessage() for r in caplog.records if "cannot be used" in r.getMessage()]
    assert str(newest) in line
    assert not line.endswith(": ")
    assert "\n" not in line


def test_a_checkpoint_that_lost_its_index_does_not_count(built, session, logdir, write_checkpoints):
    write_checkpoints(2, 10)
    Path(f"{logdir}/model.ckpt-10.index").unlink()
    assert initialize(built, session, logdir).path == f"{logdir}/model.ckpt-2"


def test_checkpoints_of_which_none_is_whole_are_not_started_over(
    built, session, logdir, write_checkpoints
):
    write_checkpoints(2, 10)
    for step in (2, 10):
        truncate(f"{logdir}/model.ckpt-{step}.data-00000-of-00001")
    with pytest.raises(JobFailed) as caught:
        initialize(built, session, logdir)
    message = str(caught.value)
    assert message.startswith(
        f"no checkpoint in {logdir} can be restored: all of them are corrupt."
    )
    assert "Give another --logdir to start afresh" in message
    assert f"Newest: {logdir}/model.ckpt-10: " in message


def test_a_job_without_a_whole_checkpoint_never_starts_afresh(
    built, session, logdir, write_checkpoints
):
    """Otherwise a user who restarts it would lose the model without notice."""
    write_checkpoints(10)
    truncate(f"{logdir}/model.ckpt-10.data-00000-of-00001")
    for _ in range(2):
        with pytest.raises(JobFailed, match="all of them are corrupt"):
            initialize(built, session, logdir)


def test_nothing_is_left_of_a_checkpoint_that_broke_off_in_the_middle(
    built, session, logdir, write_checkpoints
):
    """The last variable is damaged: those before it may have their wrong values already."""
    write_checkpoints(5, 10)
    data = Path(f"{logdir}/model.ckpt-10.data-00000-of-00001")
    reader = tf.train.load_checkpoint(f"{logdir}/model.ckpt-10")
    assert reader.get_tensor("w/Momentum").tolist() == [1.0] * 3  # It was 1 at step 5, too.
    flip(data, -1)
    initialize(built, session, logdir)
    assert session.run([built.global_step, built.examples]) == [5, 25]
    assert weight(built, session) == [-5.0] * 3
    session.run(built.train_op)
    assert weight(built, session) == [-6.0] * 3


# Handling of a corrupt checkpoint


def test_a_corrupt_checkpoint_is_set_aside_and_said(built, session, logdir, write_checkpoints):
    write_checkpoints(5, 10)
    flip(f"{logdir}/model.ckpt-10.data-00000-of-00001", 0)
    said = []
    restored = initialize(built, session, logdir, on_passed_over=said.append)
    assert restored.global_step == 5
    [message] = said
    assert f"the newest checkpoint {logdir}/model.ckpt-10 is corrupt" in message
    assert f"{logdir}/model.ckpt-5 was restored" in message
    assert sorted(path.name for path in Path(logdir, "corrupt").iterdir()) == [
        "model.ckpt-10.data-00000-of-00001",
        "model.ckpt-10.index",
    ]
    assert [step for step, _ in find_checkpoints(logdir)] == [5]
    assert tf.train.latest_checkpoint(logdir) == f"{logdir}/model.ckpt-5"
    initialize(built, session, logdir, on_passed_over=said.append)
    assert said == [message]  # It is not read again.


def test_a_corrupt_checkpoint_that_cannot_be_moved_stays(
    built, session, logdir, write_checkpoints, caplog
):
    write_checkpoints(5, 10)
    flip(f"{logdir}/model.ckpt-10.data-00000-of-00001", 0)
    Path(logdir, "corrupt").write_text("in the way")
    assert initialize(built, session, logdir).global_step == 5
    assert "model.ckpt-10 stays where it is" in caplog.text
    assert initialize(built, session, logdir).global_step == 5


def test_a_corrupt_checkpoint_takes_no_place_of_those_that_are_kept(
    cluster, build_graph, counting_model, logdir, write_checkpoints
):
    write_checkpoints(2, 4, 6)
    flip(f"{logdir}/model.ckpt-6.data-00000-of-00001", 0)
    built = build_graph(counting_model, defaults=JobDefaults(keep_checkpoints=3))
    session = cluster.session(built.graph)
    initialize(built, session, logdir)
    with built.graph.as_default():
        built.saver.save(session, f"{logdir}/model.ckpt", global_step=5, write_meta_graph=False)
    assert [step for step, _ in find_checkpoints(logdir)] == [5, 4, 2]


def test_one_of_another_model_is_not_called_corrupt(
    cluster, build_graph, logdir, write_checkpoints, built, session
):
    write_checkpoints(2)

    def other(task):
        new = v1.get_variable("brand_new", [7], initializer=v1.zeros_initializer())
        return TrainSpec(loss=tf.reduce_sum(new), optimizer=v1.train.GradientDescentOptimizer(1.0))

    cluster.reset()
    changed = build_graph(other)
    with pytest.raises(JobFailed, match=r"did the model change\?"):
        initialize(changed, cluster.session(changed.graph), logdir)
    assert [step for step, _ in find_checkpoints(logdir)] == [2]


# Files of a killed process


def test_what_a_killed_save_has_left_is_removed(built, session, logdir, write_checkpoints):
    write_checkpoints(5)
    whole = {path.name for path in Path(logdir).iterdir()}
    left = [
        "model.ckpt-10.data-00000-of-00001.tempstate16591425600622916229",
        "model.ckpt-11.data-00000-of-00001",
        "model.ckpt-11.index.tempstate591425600622916229",
        "model.ckpt-12.job.json",
        ".model.ckpt-13.job.json-0123456789abcdef0123456789abcdef",
        "checkpoint.tmp0123456789abcdef0123456789abcdef",
    ]
    others = {"model.ckpt-14.notes", "events.out.tfevents.1", "other.ckpt-3.data-00000-of-00001"}
    for name in (*left, *others):
        Path(logdir, name).touch()
    Path(logdir, "model.ckpt-10_temp").mkdir()
    Path(logdir, "model.ckpt-10_temp", "part-00000-of-00002.data-00000-of-00001").touch()
    assert initialize(built, session, logdir).global_step == 5
    assert {path.name for path in Path(logdir).iterdir()} == whole | others


def test_a_model_that_changed_does_not_fit(cluster, build_graph, logdir, write_checkpoints):
    write_checkpoints(2)
    cluster.reset()

    def other(task):
        new = v1.get_variable("brand_new", [7], initializer=v1.zeros_initializer())
        return TrainSpec(loss=tf.reduce_sum(new), optimizer=v1.train.AdamOptimizer())

    built = build_graph(other)
    with pytest.raises(JobFailed, match=r"did the model change\?.*brand_new"):
        initialize(built, cluster.session(built.graph), logdir)


def test_a_model_of_another_shape_does_not_fit(cluster, build_graph, logdir, write_checkpoints):
    write_checkpoints(2)
    cluster.reset()

    def wider(task):
        wide = v1.get_variable("w", [4], initializer=v1.zeros_initializer())
        return TrainSpec(loss=tf.reduce_sum(wide), optimizer=v1.train.MomentumOptimizer(1.0, 0.0))

    built = build_graph(wider)
    with pytest.raises(JobFailed, match=r"did the model change\?.*shape"):
        initialize(built, cluster.session(built.graph), logdir)


def test_old_checkpoints_of_an_earlier_run_are_deleted_in_turn(
    cluster, build_graph, counting_model, logdir, write_checkpoints
):
    write_checkpoints(2, 4)
    built = build_graph(counting_model, defaults=JobDefaults(keep_checkpoints=2))
    session = cluster.session(built.graph)
    initialize(built, session, logdir)
    with built.graph.as_default():
        built.saver.save(session, f"{logdir}/model.ckpt", global_step=6, write_meta_graph=False)
    assert [step for step, _ in find_checkpoints(logdir)] == [6, 4]


@pytest.mark.parametrize("take", [initialize, lambda built, _, logdir: adopt(built, logdir)])
def test_what_an_earlier_run_kept_beyond_the_limit_is_deleted(
    cluster, build_graph, counting_model, logdir, write_checkpoints, take
):
    write_checkpoints(2, 4, 6, 8)
    built = build_graph(counting_model, defaults=JobDefaults(keep_checkpoints=2))
    session = cluster.session(built.graph)
    assert take(built, session, logdir).global_step == 8
    assert [step for step, _ in find_checkpoints(logdir)] == [8, 6]
    state = tf.train.get_checkpoint_state(logdir)
    assert [path.rpartition("-")[2] for path in state.all_model_checkpoint_paths] == ["6", "8"]


def test_what_is_kept_for_good_is_not_deleted(
    cluster, build_graph, counting_model, logdir, write_checkpoints
):
    """Files that a saver keeps and TensorFlow's record omits are not deleted."""
    write_checkpoints(2, 4, 6, 8, 10, 12, 14)  # The record has the newest five.

    def build(task):
        spec = counting_model(task)
        saver = v1.train.Saver(max_to_keep=2, keep_checkpoint_every_n_hours=1)
        return dataclasses.replace(spec, loop_args={"scaffold": v1.train.Scaffold(saver=saver)})

    for name in ("2.index", "2.data-00000-of-00001", "4.index", "4.data-00000-of-00001"):
        newer = Path(logdir, f"model.ckpt-14.{name[2:]}")
        Path(logdir, f"model.ckpt-{name}").write_bytes(newer.read_bytes())
    built = build_graph(build)
    assert initialize(built, cluster.session(built.graph), logdir).global_step == 14
    assert [step for step, _ in find_checkpoints(logdir)] == [14, 12, 4, 2]


@pytest.mark.parametrize("arguments", ["max_to_keep=3", "{'new/w': w}", "[w]"])
def test_a_model_with_a_saver_of_its_own_is_restored_with_its_slots(
    cluster, build_graph, logdir, arguments
):
    def build(task):
        w = v1.get_variable("w", [2], initializer=v1.zeros_initializer())
        saver = eval(f"v1.train.Saver({arguments})", {"v1": v1, "w": w})
        return TrainSpec(
            loss=tf.reduce_sum(w),
            optimizer=v1.train.MomentumOptimizer(0.5, 0.5),
            loop_args={"scaffold": v1.train.Scaffold(saver=saver)},
        )

    built = build_graph(build)
    session = cluster.session(built.graph)
    assert initialize(built, session, logdir) is None
    session.run(built.train_op)
    with built.graph.as_default():
        built.saver.save(session, f"{logdir}/model.ckpt", global_step=1, write_meta_graph=False)
    cluster.reset()
    again = build_graph(build)
    session = cluster.session(again.graph)
    assert initialize(again, session, logdir).global_step == 1
    momentum = again.graph.get_tensor_by_name("w/Momentum/Read/ReadVariableOp:0")
    assert session.run(momentum).tolist() == [1.0, 1.0]


def test_a_chief_that_finds_the_model_there_takes_over_its_checkpoints(
    cluster, build_graph, counting_model, logdir, write_checkpoints
):
    write_checkpoints(2, 4)
    Path(logdir, "model.ckpt-5.data-00000-of-00001").touch()
    built = build_graph(counting_model, defaults=JobDefaults(keep_checkpoints=2))
    session = cluster.session(built.graph)
    newest = adopt(built, logdir)
    assert (newest.path, newest.global_step) == (f"{logdir}/model.ckpt-4", 4)
    assert weight(built, session) == [-5.0] * 3  # The restored weight, after one step.
    with built.graph.as_default():
        built.saver.save(session, f"{logdir}/model.ckpt", global_step=5, write_meta_graph=False)
    assert [step for step, _ in find_checkpoints(logdir)] == [5, 4]


def test_an_init_op_of_the_models_own_need_not_know_the_slots(cluster, build_graph, logdir):
    def build(task):
        w = v1.get_variable("w", [2], initializer=v1.ones_initializer())
        scaffold = v1.train.Scaffold(init_op=v1.global_variables_initializer())
        return TrainSpec(
            loss=tf.reduce_sum(w),
            optimizer=v1.train.AdagradOptimizer(0.5, initial_accumulator_value=4.0),
            loop_args={"scaffold": scaffold},
        )

    built = build_graph(build)
    session = cluster.session(built.graph)
    assert initialize(built, session, logdir) is None
    values = [f"{name}/Read/ReadVariableOp:0" for name in ("w", "w/Adagrad")]
    assert [each.tolist() for each in session.run(values)] == [[1.0, 1.0], [4.0, 4.0]]


def test_a_variable_that_is_left_without_a_value_is_named(built, session, logdir):
    forgetful = dataclasses.replace(built, init_op=built.global_step.initializer)
    with pytest.raises(JobFailed, match=r"without a value after initialization: w$"):
        initialize(forgetful, session, logdir)
