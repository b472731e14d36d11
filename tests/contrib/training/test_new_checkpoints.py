"""Waiting for checkpoints: which one comes, and when waiting ends."""

import threading
import time

import pytest
import tensorflow as tf

from paramserve.contrib.training import checkpoints_iterator, wait_for_new_checkpoint

v1 = tf.compat.v1


@pytest.fixture
def save(tmp_path):
    """Writes a checkpoint for a step and returns its path."""
    with tf.Graph().as_default() as graph:
        variable = v1.get_variable("variable", initializer=[1.0, 2.0])
        other = v1.get_variable("other", initializer=[3.0])
        savers = {
            sharded: v1.train.Saver([variable, other], sharded=sharded, max_to_keep=2)
            for sharded in (False, True)
        }
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())

            def save(step, sharded=False):
                with graph.as_default():  # A new thread does not inherit it.
                    return savers[sharded].save(session, str(tmp_path / "model.ckpt"), step)

            yield save


def test_a_checkpoint_that_is_there_comes_at_once(save, tmp_path):
    path = save(1)
    assert wait_for_new_checkpoint(str(tmp_path), timeout=0) == path
    newer = save(2)
    assert wait_for_new_checkpoint(str(tmp_path), path) == newer


def test_time_runs_out_without_a_new_one(save, tmp_path):
    path = save(1)
    began = time.monotonic()
    assert wait_for_new_checkpoint(str(tmp_path), path, timeout=0.3) is None
    assert time.monotonic() - began >= 0.3
    assert wait_for_new_checkpoint(str(tmp_path / "not there"), timeout=0) is None


def test_it_waits_for_the_next_one(save, tmp_path):
    first = save(1)
    later = threading.Timer(0.3, save, [2])
    later.start()
    found = wait_for_new_checkpoint(str(tmp_path), first, seconds_to_sleep=0.05, timeout=60)
    later.join()
    assert found == str(tmp_path / "model.ckpt-2")


@pytest.mark.parametrize("sharded", [False, True])
def test_each_new_checkpoint_is_yielded_but_only_the_newest_that_is_there(save, tmp_path, sharded):
    found = []
    save(0, sharded)
    save(1, sharded)
    for path in checkpoints_iterator(str(tmp_path), timeout=0):
        found.append(path)
        if len(found) < 3:
            save(len(found) + 1, sharded)
    assert found == [str(tmp_path / f"model.ckpt-{step}") for step in (1, 2, 3)]


def test_two_turns_are_an_interval_apart(save, tmp_path):
    times = []
    save(0)
    for _ in checkpoints_iterator(str(tmp_path), min_interval_secs=0.4, timeout=0):
        times.append(time.monotonic())
        if len(times) < 2:
            save(len(times))
    assert times[1] - times[0] >= 0.4


def test_when_time_runs_out_the_function_decides(save, tmp_path):
    calls = []

    def give_up():
        calls.append(len(calls))
        if len(calls) == 2:
            save(5)
        return len(calls) == 4

    found = list(checkpoints_iterator(str(tmp_path), timeout=0, timeout_fn=give_up))
    assert found == [str(tmp_path / "model.ckpt-5")]
    assert len(calls) == 4
