"""Roles, tasks, static specs and views: reading, writing and refusals."""

import json
import subprocess
import sys

import pytest

from paramserve.cluster.address import parse_master
from paramserve.cluster.spec import (
    ClusterSpec,
    ClusterView,
    Member,
    Role,
    Task,
)

SPEC = ClusterSpec(
    chief="chief.example:7077",
    ps=("10.0.0.1:2222", "[fd00::2]:2222"),
    workers=("w-0:2222", "w-1:2222", "w_2:65535"),
    evaluator="eval:1",
)
TASKS = [task for task, _ in SPEC.items()]


def tf_config(cluster, task=None):
    return json.dumps({"cluster": cluster, "task": task or {"type": "chief", "index": 0}})


def test_importing_it_does_not_import_tensorflow():
    program = "import sys, paramserve.cluster.spec; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


# Tasks


def test_a_task_reads_back_what_it_writes():
    task = Task(Role.WORKER, 1)
    assert str(task) == "worker:1"
    assert task.device == "/job:worker/task:1"
    assert Task.parse("worker:1") == task
    assert Task.parse("master:0") == Task(Role.CHIEF, 0)


def test_tasks_sort_by_role_and_index():
    tasks = [Task.parse(text) for text in ("worker:10", "ps:1", "worker:9", "ps:0")]
    assert [str(task) for task in sorted(tasks)] == ["ps:0", "ps:1", "worker:9", "worker:10"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("worker", "'worker' has no index"),
        ("boss:0", "unknown role 'boss': use one of chief, ps, worker, evaluator"),
        ("worker:one", "'one': use a whole number"),
        ("worker:-1", "'-1': use a whole number"),
        ("worker:1.5", "'1.5': use a whole number"),
    ],
)
def test_a_malformed_task_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        Task.parse(text)


def test_a_negative_index_is_refused():
    with pytest.raises(ValueError, match="worker:-1 has a negative index"):
        Task(Role.WORKER, -1)


# Static specs


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_a_spec_survives_tf_config(task):
    assert ClusterSpec.from_tf_config(SPEC.to_tf_config(task)) == (SPEC, task)


def test_a_spec_survives_a_cluster_def():
    assert ClusterSpec.from_cluster_def(SPEC.to_cluster_def()) == SPEC


def test_a_cluster_def_of_tensorflow_is_read():
    import tensorflow as tf

    jobs = {"master": ["c:1"], "ps": ["p:1", "p:2"], "worker": {1: "w:2", 0: "w:1"}}
    spec = ClusterSpec.from_cluster_def(tf.train.ClusterSpec(jobs).as_cluster_def())
    assert spec == ClusterSpec(chief="c:1", ps=("p:1", "p:2"), workers=("w:1", "w:2"))


def test_a_small_spec_writes_only_what_it_has():
    spec = ClusterSpec(chief="c:1", ps=("p:1",))
    assert [job.name for job in spec.to_cluster_def().job] == ["chief", "ps"]
    assert json.loads(spec.to_tf_config(Task(Role.PS, 0))) == {
        "cluster": {"chief": ["c:1"], "ps": ["p:1"]},
        "task": {"type": "ps", "index": 0},
    }


def test_a_spec_is_read_from_host_lists():
    spec = ClusterSpec.from_hosts(chief="c:1", ps="p:1, p:2", workers=["w:1", "w:2"], evaluator="")
    assert spec == ClusterSpec(chief="c:1", ps=("p:1", "p:2"), workers=("w:1", "w:2"))


def test_masters_are_strings_for_tensorflow():
    assert SPEC.master_for(Task(Role.PS, 1)) == "grpc://[fd00::2]:2222"
    assert parse_master(SPEC.master_for(Task(Role.WORKER, 0))) == "w-0:2222"


def test_an_unlisted_task_has_no_master():
    with pytest.raises(ValueError, match="worker:3 is not in the cluster, which lists 3 task"):
        SPEC.master_for(Task(Role.WORKER, 3))


@pytest.mark.parametrize(
    ("hosts", "complaint"),
    [
        ({"chief": ""}, "has no chief.*add"),
        ({"chief": "c:1,d:1"}, "has 2 tasks of role chief: give one"),
        ({"chief": "c:1", "evaluator": "e:1,e:2"}, "has 2 tasks of role evaluator: give one"),
        ({"chief": "c:1", "ps": "p:1,,p:2"}, "ps:1 address '' has no port"),
        ({"chief": "c:1", "ps": "p:1,p:70000"}, "ps:1 address .*'70000': use a number"),
        ({"chief": "c:1", "ps": "p:1,p:1"}, "'p:1' is used by ps:0 and ps:1: give each"),
        ({"chief": "c:1", "workers": "c:01"}, "'c:1' is used by chief:0 and worker:0"),
    ],
)
def test_malformed_host_lists_are_refused(hosts, complaint):
    with pytest.raises(ValueError, match=complaint):
        ClusterSpec.from_hosts(**hosts)


def test_a_spec_made_by_hand_is_checked_too():
    with pytest.raises(ValueError, match="'h:1' is used by chief:0 and ps:0"):
        ClusterSpec(chief="h:1", ps=("h:1",))
    with pytest.raises(ValueError, match="no chief"):
        ClusterSpec(chief="")


def test_a_cluster_def_with_a_gap_is_refused():
    import tensorflow as tf

    jobs = tf.train.ClusterSpec({"chief": ["c:1"], "worker": {0: "w:1", 2: "w:2"}})
    with pytest.raises(ValueError, match=r"role worker has the task indices \[0, 2\], but no 1"):
        ClusterSpec.from_cluster_def(jobs.as_cluster_def())


# TF_CONFIG


def test_tf_config_may_map_indices_to_addresses():
    text = tf_config({"chief": ["c:1"], "ps": {"1": "p:2", "0": "p:1"}})
    assert ClusterSpec.from_tf_config(text)[0].ps == ("p:1", "p:2")


def test_tf_config_calls_the_chief_master_too():
    text = tf_config({"master": ["c:1"]}, {"type": "master", "index": "0"})
    assert ClusterSpec.from_tf_config(text) == (ClusterSpec("c:1"), Task(Role.CHIEF, 0))


def test_an_evaluator_need_not_be_in_the_cluster():
    text = tf_config({"chief": ["c:1"]}, {"type": "evaluator", "index": 0})
    spec, task = ClusterSpec.from_tf_config(text)
    assert task == Task(Role.EVALUATOR, 0)
    assert ClusterSpec.from_tf_config(spec.to_tf_config(task)) == (spec, task)


@pytest.mark.parametrize(
    ("cluster", "complaint"),
    [
        (None, "'cluster' = None, not an object"),
        (["c:1"], r"'cluster' = \['c:1'\], not an object"),
        ({}, "has no chief"),
        ({"ps": ["p:1"]}, "has no chief"),
        ({"chief": []}, "has no chief"),
        ({"chief": ["c:1"], "boss": ["b:1"]}, "unknown role 'boss': use one of"),
        ({"chief": ["c:1"], "master": ["d:1"]}, "role chief is given twice"),
        ({"chief": "c:1"}, "role chief are 'c:1': give a list"),
        ({"chief": ["c:1"], "ps": None}, "role ps are None: give a list"),
        ({"chief": [7]}, "chief:0 address 7 is no text"),
        ({"chief": ["c:1"], "ps": {"1": "p:1"}}, r"indices \[1\], but no 0: number its tasks"),
        ({"chief": ["c:1"], "ps": {"a": "p:1"}}, "role ps has the index 'a'"),
        ({"chief": ["c:1"], "ps": {"0": "p:1", "00": "p:2"}}, "role ps gives the index 0 twice"),
        ({"chief": ["c:1"], "ps": ["p:1", "c:1"]}, "'c:1' is used by chief:0 and ps:1"),
    ],
)
def test_a_malformed_cluster_in_tf_config_is_refused(cluster, complaint):
    with pytest.raises(ValueError, match=complaint):
        ClusterSpec.from_tf_config(tf_config(cluster))


@pytest.mark.parametrize(
    ("task", "complaint"),
    [
        ([], r"'task' = \[\], not an object"),
        ({"index": 0}, "{'index': 0} has no 'type'"),
        ({"type": "worker"}, "{'type': 'worker'} has no 'index'"),
        ({"type": None, "index": 0}, "unknown role None"),
        ({"type": "boss", "index": 0}, "unknown role 'boss'"),
        ({"type": "worker", "index": True}, "index True: use a whole number"),
        ({"type": "worker", "index": -1}, "index -1: use a whole number"),
        ({"type": "worker", "index": 1}, "worker:1 is not in the cluster, which lists 1 task"),
        ({"type": "ps", "index": 0}, "ps:0 is not in the cluster, which lists 0 task"),
        ({"type": "evaluator", "index": 1}, "evaluator:1 is not in the cluster"),
    ],
)
def test_a_malformed_task_in_tf_config_is_refused(task, complaint):
    cluster = {"chief": ["c:1"], "worker": ["w:1"]}
    with pytest.raises(ValueError, match=complaint):
        ClusterSpec.from_tf_config(json.dumps({"cluster": cluster, "task": task}))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "TF_CONFIG '' is no JSON .*: write"),
        ("{cluster}", "'{cluster}' is no JSON .*: write"),
        ('["chief"]', "is no JSON object: write"),
        ("null", "is no JSON object: write"),
        ("{}", "'cluster' = None, not an object: write"),
        ('{"cluster": {"chief": ["c:1"]}}', "'task' = None, not an object: write"),
    ],
)
def test_a_malformed_tf_config_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        ClusterSpec.from_tf_config(text)


# Views

VIEW = ClusterView(generation=3, ps=(Member("p:1", "a1"), Member("p:2", "b7")))


def test_a_worker_sees_the_parameter_servers_and_itself():
    cluster = VIEW.cluster_def_for(Task(Role.WORKER, 4), "w:1")
    jobs = {job.name: dict(job.tasks) for job in cluster.job}
    assert jobs == {"ps": {0: "p:1", 1: "p:2"}, "worker": {4: "w:1"}}
    assert VIEW.device_filters_for(Task(Role.WORKER, 4)) == ["/job:ps", "/job:worker/task:4"]


def test_a_chief_sees_the_parameter_servers_and_itself():
    cluster = VIEW.cluster_def_for(Task(Role.CHIEF, 0), "c:1")
    assert {job.name: dict(job.tasks) for job in cluster.job}["chief"] == {0: "c:1"}


def test_views_differ_by_incarnation():
    assert ClusterView(3, (Member("p:1", "a1"), Member("p:2", "b8"))) != VIEW
    assert ClusterView(3, VIEW.ps) == VIEW


def test_a_malformed_view_is_refused():
    with pytest.raises(ValueError, match="generation=-1 is negative"):
        ClusterView(-1, VIEW.ps)
    with pytest.raises(ValueError, match="ps:0 address 'p' has no port"):
        ClusterView(0, (Member("p", "a"),))
    with pytest.raises(ValueError, match="'p:1' is used by ps:0 and ps:1"):
        ClusterView(0, (Member("p:1", "a"), Member("p:1", "b")))
    with pytest.raises(ValueError, match="'p:2' is used by ps:1 and worker:0"):
        VIEW.cluster_def_for(Task(Role.WORKER, 0), "p:2")
    with pytest.raises(ValueError, match="ps:0 opens no sessions"):
        VIEW.cluster_def_for(Task(Role.PS, 0), "q:1")
