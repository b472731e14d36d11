"""The loops on an ordinary cluster of TensorFlow servers, one process a task."""

import time

import pytest
import tensorflow as tf

from support.waiting import until

LAST_STEP = 240


def saved_step(logdir):
    """The global step of the newest checkpoint, by its name; 0 when there is none."""
    return int((tf.train.latest_checkpoint(logdir) or "-0").rpartition("-")[2])


@pytest.fixture(scope="module", params=["training", "learn", "model_pruning"])
def story(request, start_cluster):
    """A worker comes before all others; a parameter server is killed, and comes back."""
    start = start_cluster(loop=request.param, ps=2, workers=2, last_step=LAST_STEP, step_secs=0.02)
    workers = [start("worker", 0)]
    workers[0].wait_for("up")
    servers = [start("ps", 0), start("ps", 1)]
    for server in servers:
        server.wait_for("up")
    chief = start("chief")
    workers.append(start("worker", 1))
    tasks = [chief, *workers]
    for task in tasks:
        task.wait_for("step", at_least=10)
    until(lambda: saved_step(start.logdir) > 0)
    saved = saved_step(start.logdir)
    servers[1].kill()
    killed_at = time.time()
    start("ps", 1)
    assert [task.exit_code() for task in tasks] == [0] * 3, "\n".join(t.output for t in tasks)
    return {
        "loop": request.param,
        "tasks": tasks,
        "saved": saved,
        "killed_at": killed_at,
        "logdir": start.logdir,
    }


def test_a_worker_that_came_early_starts_right_after_its_chief(story):
    chief, early, _ = story["tasks"]
    # TensorFlow's own session manager would have looked again after 30 s.
    assert early.events("step")[0]["time"] - chief.events("step")[0]["time"] < 15


def test_after_the_death_of_a_parameter_server_all_go_on_from_a_checkpoint(story):
    steps = [event for task in story["tasks"] for event in task.events("step")]
    before = [event["step"] for event in steps if event["time"] < story["killed_at"]]
    after = [event["step"] for event in steps if event["time"] > story["killed_at"]]
    # Steps that were under way may have ended a moment later.
    assert story["saved"] < min(after) <= max(before) + 3
    for task in story["tasks"]:
        assert max(task.steps()) >= LAST_STEP - 3
    assert saved_step(story["logdir"]) >= LAST_STEP


def test_all_train_one_model(story):
    """The global step counts the steps of all; each may add those it has begun."""
    last = max(e["step"] for task in story["tasks"] for e in task.events("step"))
    assert LAST_STEP <= last <= LAST_STEP + 6
    for task in story["tasks"]:
        assert len([e for e in task.events("step") if e["time"] > story["killed_at"]]) > 10


def test_the_model_has_learned(story):
    for task in story["tasks"]:
        [done] = task.events("done")
        assert done["loss"] < 0.1


def test_pruned_weights_have_equal_masks_in_all_tasks(story):
    # Half of the weights: the informative one stays. The other loops prune nothing.
    mask = [1.0, 0.0] if story["loop"] == "model_pruning" else None
    assert [task.events("done")[0].get("mask") for task in story["tasks"]] == [mask] * 3
    saved = dict(tf.train.list_variables(story["logdir"]))
    assert ("mask" in saved) == (mask is not None)
    if mask is not None:
        assert tf.train.load_variable(story["logdir"], "mask").ravel().tolist() == mask


@pytest.mark.parametrize("loop", ["training", "model_pruning"])
def test_synchronous_training_ends_soon_after_its_last_step(start_cluster, loop):
    """Stock loops wait two minutes for a queue runner that waits for gradients."""
    start = start_cluster(loop=loop, last_step=40, sync=True)
    start("ps")
    tasks = [start("chief"), start("worker")]

    assert [task.exit_code() for task in tasks] == [0, 0], tasks[0].output + tasks[1].output

    last = max(e["time"] for task in tasks for e in task.events("step"))
    for task in tasks:
        [done] = task.events("done")
        assert done["time"] - last < 20
        assert done["loss"] < 0.5
    if loop == "model_pruning":
        assert [task.events("done")[0]["mask"] for task in tasks] == [[1.0, 0.0]] * 2
