"""A process that trains again and again, as notebooks and searches do."""

import gc
import os

import psutil
import pytest
import tensorflow as tf

from paramserve.contrib import learn, model_pruning, training

v1 = tf.compat.v1
CALLS = 102
WARM_UP = 30


def train_once(loop, logdir):
    with tf.Graph().as_default() as graph:
        weights = v1.get_variable("weights", [100])
        step = v1.train.get_or_create_global_step()
        loss = tf.reduce_sum(weights**2)
        v1.summary.scalar("loss", loss)
        update = v1.train.AdamOptimizer().minimize(loss, global_step=step)
        with tf.control_dependencies([update]):
            train_op = tf.identity(loss)
        if loop == "learn":
            learn.train(graph, logdir, update, loss, max_steps=2)
        elif loop == "training":
            training.train(train_op, logdir, hooks=[v1.train.StopAtStepHook(last_step=2)])
        else:
            model_pruning.train(train_op, logdir, tf.no_op(), number_of_steps=2)


def resources():
    gc.collect()
    process = psutil.Process()
    return {
        "mebibytes": process.memory_info().rss / 2**20,
        "threads": process.num_threads(),
        "open files": len(os.listdir("/proc/self/fd")),
    }


@pytest.mark.timeout(600)
def test_over_a_hundred_calls_memory_threads_and_files_stay_as_they_are(tmp_path):
    loops = ["learn", "training", "model_pruning"]
    for call in range(WARM_UP):
        train_once(loops[call % 3], str(tmp_path / f"{call}"))
    before = resources()
    for call in range(WARM_UP, CALLS):
        train_once(loops[call % 3], str(tmp_path / f"{call}"))
    after = resources()
    # A model and its graph take about 1 MiB: a leak of each would add up to 72. In a process that
    # has run nothing else, the allocator's own growth is about 20.
    assert after["mebibytes"] - before["mebibytes"] < 36
    assert after["threads"] <= before["threads"] + 2
    assert after["open files"] <= before["open files"] + 2
