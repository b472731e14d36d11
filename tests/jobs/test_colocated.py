"""Jobs and clusters whose workers hold the parameters themselves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from paramserve import Job
from paramserve.chief.membership.membership import Membership
from paramserve.chief.membership.registry import UnknownTask
from paramserve.cluster.runtime import session_config
from paramserve.cluster.spec import ClusterView, Member, Role, Task
from paramserve.data_plane.options import DataPlane
from paramserve.data_plane.placement import on_cluster
from paramserve.errors import UsageError
from support.membership import register
from support.ports import free_addresses

from .conftest import MODELS, PATIENCE_SECS

v1 = tf.compat.v1
SHARDS = f"{MODELS / 'shards.py'}:build"
STEPS = 40


def make_job(logdir, max_steps=STEPS, **options):
    return Job(
        SHARDS,
        **{
            "logdir": str(logdir),
            "launcher": "process",
            "num_workers": 2,
            "max_steps": max_steps,
            "params": {"slow": "0.04"},
            **options,
        },
    )


def weights_of(checkpoint):
    """Returns the contents of a checkpoint, by name: weights, momenta and counters."""
    names = [name for name, _ in tf.train.list_variables(str(checkpoint))]
    return {name: tf.train.load_variable(str(checkpoint), name) for name in names}


def assert_same_weights(one, other):
    one, other = weights_of(one), weights_of(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=1e-4, atol=1e-6, err_msg=name)


def tasks_of(status, role):
    return {task.index: task for task in status.tasks if task.role == role}


def copy_checkpoint(source, target):
    """Copies the oldest checkpoint to a new directory, and returns its global step."""
    step, name = min(
        (int(path.stem.partition("-")[2]), path.stem) for path in source.glob("model.ckpt-*.index")
    )
    target.mkdir()
    for path in source.glob(f"{name}.*"):
        shutil.copy(path, target)
    return step


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """A sync job with a parameter server of its own, which left a checkpoint midway, too."""
    logdir = tmp_path_factory.mktemp("ordinary")
    result = make_job(logdir, num_ps=1, save_checkpoint_steps=12).run()
    assert result.global_step == STEPS
    return result


@pytest.fixture(scope="module")
def story(ordinary, tmp_path_factory):
    """A sync job on workers continues from there; one of them is killed and returns."""
    logdir = tmp_path_factory.mktemp("story") / "job"
    begin = copy_checkpoint(Path(ordinary.logdir), logdir)
    job = make_job(
        logdir,
        STEPS - 6,
        ps_on_workers=True,
        params={"slow": "0.2"},  # Else it could be over before one is killed.
        save_checkpoint_steps=3,
        heartbeat_secs=0.5,
        lease_secs=3.0,
    )
    before, after = [], []

    def kill_once(status):
        if before:
            after.append(status)
        elif status.global_step >= begin + 5:
            before.append(status)
            os.kill(tasks_of(status, "worker")[1].pid, signal.SIGKILL)

    result = job.run(on_status=kill_once)
    return SimpleNamespace(before=before[0], after=after[-1], result=result)


def test_each_worker_holds_a_shard_in_its_own_process(story):
    servers, workers = (tasks_of(story.before, role) for role in ("ps", "worker"))
    assert [servers[i].pid for i in (0, 1)] == [workers[i].pid for i in (0, 1)]
    assert [servers[i].address for i in (0, 1)] == [workers[i].address for i in (0, 1)]
    # 180 weights and as many momenta of 4 bytes, and two counters of 8.
    assert sum(server.parameter_bytes for server in servers.values()) == 1456
    assert max(server.parameter_bytes for server in servers.values()) < 1000


def test_a_killed_worker_takes_its_shard_along_and_the_job_restores_it(story):
    """The other worker's process continues."""
    before, after = (tasks_of(status, "worker") for status in (story.before, story.after))
    assert (story.before.generation, story.after.generation) == (1, 2)
    assert before[0].pid == after[0].pid
    assert before[1].pid != after[1].pid
    assert story.result.global_step == STEPS - 6
    assert story.result.ps == 2


def test_weights_are_those_of_a_job_with_parameter_servers(ordinary, story):
    """From its checkpoint to one on workers, with a recovery between, and back."""
    result = make_job(story.result.logdir, num_ps=1).run()

    assert_same_weights(result.checkpoint, ordinary.checkpoint)


def test_a_worker_without_input_keeps_its_shard_and_one_too_many_has_none(logdir, start):
    """Async: worker 0 is done after 10 steps, worker 2 comes late, the others train on."""
    stop = threading.Event()
    seen = []

    def invite_and_wait(status):
        seen.append(status)
        workers = tasks_of(status, "worker")
        if status.global_step >= 15 and "late" not in story:
            address = json.loads((logdir / "job.json").read_text())["address"]
            story["late"] = start("worker", SHARDS, "--chief", address)
        if 2 in workers and workers[2].local_steps >= 5 and workers[0].state == "end of input":
            stop.set()

    story = {}
    params = {"slow": "0.04", "limit": "10"}
    job = make_job(logdir, 100_000, ps_on_workers=True, sync=False, params=params)
    result = job.run(on_status=invite_and_wait, stop=stop)

    trained = (status for status in seen if status.phase == "training")
    last = max(trained, key=lambda status: status.global_step)
    servers, workers = (tasks_of(last, role) for role in ("ps", "worker"))
    assert workers[0].local_steps == 10
    assert [servers[i].state for i in (0, 1)] == ["up", "up"]
    assert sorted(s.address for s in servers.values()) == sorted(workers[i].address for i in (0, 1))
    assert result.reason == "stopped"
    assert result.examples == result.global_step * 8
    assert result.loss < 1.0
    assert story["late"].wait() == 0
    weights = weights_of(result.checkpoint)
    assert weights["weights3"].sum(axis=0) == pytest.approx([3.0] * 3, abs=0.3)


def test_a_workers_own_variables_do_not_move_those_that_all_share():
    """In a worker that is a parameter server, local variables look like parameters there."""

    def places(device):
        with tf.Graph().as_default(), on_cluster(2, device):
            for name, collection in (("own", "local_variables"), ("a", "variables")):
                v1.get_variable(name, [5], collections=[collection])
            return v1.global_variables()[0].device

    assert places("/job:ps/task:0") == places("/job:chief/task:0")


def test_as_many_parameter_servers_as_workers(tmp_path):
    with pytest.raises(UsageError, match="--ps 1 with --ps-on-workers and --workers 2: each"):
        make_job(tmp_path, num_ps=1, ps_on_workers=True)

    with pytest.raises(UsageError, match="--local-steps 2 with --ps-on-workers"):
        make_job(tmp_path, ps_on_workers=True, data_plane=DataPlane(local_steps=2))

    assert make_job(tmp_path, num_ps=2, ps_on_workers=True).options.num_ps == 2
    assert make_job(tmp_path, ps_on_workers=True).options.num_ps == 2
    assert make_job(tmp_path).options.num_ps == 1


@pytest.fixture(scope="module")
def static_cluster(tmp_path_factory):
    """Two workers without a chief's service, which trained async and then sync."""
    folder = tmp_path_factory.mktemp("static")
    (folder / "addresses").write_text(json.dumps(free_addresses(2)))
    program = Path(__file__).parent / "colocated_workers.py"
    logs = [folder / f"log-{index}" for index in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, program, folder, str(index)],
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
        )
        for index, log in enumerate(logs)
    ]
    try:
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(PATIENCE_SECS) == 0, log.read_text()
    finally:
        for process in processes:
            process.kill()
    return folder


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_only_the_shards_of_others_cross(static_cluster, mode):
    """4 variables of 6,000 bytes on 2 workers: each pulls and pushes half of them, at once."""
    for index in range(2):
        found = json.loads((static_cluster / f"found-{index}").read_text())
        assert found[mode] == {"pulled": [12_000], "pushed": [12_000]}


def test_a_static_cluster_of_workers_trains_as_one_process_would(static_cluster):
    """Sync: the mean of two workers' gradients is the gradient of both batches together."""
    x = np.concatenate([np.random.RandomState(index).randn(8, 50) for index in range(2)])
    saved = weights_of(static_cluster / "sync" / "model.ckpt-20")
    for k in range(4):
        weights = np.zeros([50, 30])
        for _ in range(20):
            weights -= 2 * x.T @ (x @ weights - (k + 1)) / (16 * 30)
        np.testing.assert_allclose(saved[f"sync/weights{k}"], weights, rtol=1e-4, atol=1e-6)


def test_what_a_process_is_in_a_job_shares_one_lease():
    now = [0.0]
    membership = Membership(num_ps=1, lease_secs=10.0, ps_on_workers=True, clock=lambda: now[0])
    assert "ps:0 on worker:0 (never heard of)" in membership.missing()
    for role in (Role.WORKER, Role.PS):
        register(membership, role, address="w:1", incarnation="life", index=0)
    now[0] = 9.0
    membership.heartbeat(Task(Role.WORKER, 0), "life", None)
    now[0] = 18.0
    assert membership.expire() == []

    now[0] = 20.0

    assert membership.expire() == [Task(Role.PS, 0), Task(Role.WORKER, 0)]
    with pytest.raises(UnknownTask, match="ps:0 was declared lost"):
        membership.heartbeat(Task(Role.PS, 0), "life", None)


def test_a_session_knows_a_worker_with_a_shard_by_the_shards_name_only():
    view = ClusterView(1, (Member("w:1", "a"), Member("w:2", "b")))
    worker = Task(Role.WORKER, 1)

    own, other = session_config(view, worker, "w:2"), session_config(view, worker, "w:3")

    assert [job.name for job in own.cluster_def.job] == ["ps"]
    assert list(own.device_filters) == ["/job:ps"]
    assert [job.name for job in other.cluster_def.job] == ["ps", "worker"]
