"""`contrib.learn.evaluate`: metrics over some batches, written as summaries."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.learn import evaluate, train
from paramserve.contrib.learn.graph_actions import clear_summary_writers, get_summary_writer

v1 = tf.compat.v1


@pytest.fixture
def inference(counter):
    """Adds 5 to its input."""
    counter.feature = v1.placeholder_with_default(2.0, [])
    counter.output = counter.feature + v1.get_variable("bias", initializer=5.0)
    return counter


class Feeder:
    """Feeds 0, 10, 20, ... as often as it is told."""

    def __init__(self, tensor, times):
        self._tensor = tensor
        self._times = times
        self.count = 0

    def __call__(self):
        if self.count == self._times:
            raise StopIteration
        self.count += 1
        return {self._tensor: 10.0 * (self.count - 1)}


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_directory_is_refused(graph, inference, nothing):
    with pytest.raises(ValueError, match="Output directory"):
        evaluate(graph, nothing, None, {"output": inference.output})


def test_no_graph_and_no_global_step_are_refused(graph, output_dir):
    with pytest.raises(ValueError, match="graph=None"):
        evaluate(None, output_dir, None, {})
    with pytest.raises(ValueError, match="global_step"):
        evaluate(graph, output_dir, None, {"a": tf.constant(1.0)})


def test_one_step(graph, output_dir, inference, summaries):
    results = evaluate(graph, output_dir, None, {"output": inference.output}, max_steps=1)
    assert results == ({"output": 7.0}, 0)
    assert summaries() == [(0, "output", 7.0)]
    assert not tf.io.gfile.glob(f"{output_dir}/model.ckpt*")
    assert not graph.finalized


def test_the_last_of_three_feeds_counts(graph, output_dir, inference, summaries):
    feeder = Feeder(inference.feature, 3)
    results = evaluate(
        graph, output_dir, None, {"output": inference.output}, feed_fn=feeder, max_steps=3
    )
    assert results == ({"output": 25.0}, 0)
    assert feeder.count == 3
    assert summaries() == [(0, "output", 25.0)]


@pytest.mark.parametrize(("max_steps", "level"), [(3, "WARNING"), (None, "INFO")])
def test_feeds_may_end_before(graph, output_dir, inference, caplog, max_steps, level):
    caplog.set_level(logging.INFO)
    feeder = Feeder(inference.feature, 2)
    results = evaluate(
        graph, output_dir, None, {"output": inference.output}, feed_fn=feeder, max_steps=max_steps
    )
    assert results == ({"output": 15.0}, 0)
    [ended] = [r for r in caplog.records if r.getMessage().startswith("Input ended after 2 steps")]
    assert ended.levelname == level


def test_nothing_to_evaluate_is_no_result(graph, output_dir, inference, summaries):
    output = {"output": inference.output}
    feeder = Feeder(inference.feature, 0)
    assert evaluate(graph, output_dir, None, output, feed_fn=feeder) == (None, 0)
    assert evaluate(graph, output_dir, None, output, max_steps=0) == (None, 0)
    assert summaries() == []


@pytest.mark.parametrize("end", ["limit", "feeds"])
@pytest.mark.parametrize(("log_every", "logged"), [(2, [2, 4]), (10, []), (0, [1, 2, 3, 4, 5])])
def test_update_op_gathers_what_is_shown_at_the_end(
    graph, output_dir, inference, caplog, end, log_every, logged
):
    caplog.set_level(logging.INFO)
    total = v1.get_local_variable("total", initializer=0.0)
    feeder = Feeder(inference.feature, 5 if end == "feeds" else 100)
    results, _ = evaluate(
        graph,
        output_dir,
        None,
        {"total": total.read_value()},
        update_op=total.assign_add(inference.output),
        feed_fn=feeder,
        log_every_steps=log_every,
        max_steps=5 if end == "limit" else None,
    )
    assert results == {"total": 125.0}
    lines = [r.getMessage() for r in caplog.records if "Results after" in r.getMessage()]
    assert [int(line.split()[2]) for line in lines] == logged


def test_the_end_of_a_queue_is_the_end_of_the_evaluation(graph, output_dir, counter):
    [value] = v1.train.slice_input_producer([[1.0, 2.0, 3.0]], num_epochs=1, shuffle=False)
    total = v1.get_local_variable("total", initializer=0.0)
    results, _ = evaluate(
        graph, output_dir, None, {"total": total.read_value()}, update_op=total.assign_add(value)
    )
    assert results == {"total": 6.0}


@pytest.mark.parametrize("path", ["{dir}", "{dir}/model.ckpt-2"])
def test_a_checkpoint_is_restored(graph, output_dir, model, tmp_path, path):
    """Named itself or by its directory."""
    train(graph, output_dir, model.train_op, model.loss, max_steps=2)
    with tf.Graph().as_default() as other:
        weight = v1.get_variable("weight", initializer=0.0)
        v1.train.get_or_create_global_step()
        local = v1.get_local_variable("local", initializer=1.0)
        outputs = {"weight": weight.read_value() + local}
        for _ in range(2):  # Also on the same graph again.
            results = evaluate(
                other, str(tmp_path / "eval"), path.format(dir=output_dir), outputs, max_steps=1
            )
            assert results == ({"weight": 3.5}, 2)


def test_a_checkpoint_that_is_not_there_is_refused(graph, output_dir, inference, tmp_path):
    for path in (str(tmp_path), str(tmp_path / "model.ckpt-5")):
        with pytest.raises(ValueError, match="neither a checkpoint nor a directory with one"):
            evaluate(graph, output_dir, path, {"output": inference.output}, max_steps=1)


def test_a_model_in_the_cluster_is_left_as_it_is(graph, output_dir, inference):
    """It may be the one that is being trained."""
    server = v1.train.Server.create_local_server()
    with v1.Session(server.target) as session:
        session.run(v1.global_variables_initializer())
        session.run(inference.step.assign(7))
        results = evaluate(
            graph,
            output_dir,
            None,
            {"output": inference.output},
            supervisor_master=server.target,
            max_steps=1,
        )
        assert results == ({"output": 7.0}, 7)
        assert session.run(inference.step) == 7


def test_only_floats_become_summaries(graph, output_dir, counter, summaries, caplog):
    outputs = {
        "float": tf.constant(1.5),
        "int": tf.constant(3),
        "vector": tf.constant([1.0]),
        "op": tf.no_op(),
    }
    results, _ = evaluate(graph, output_dir, None, outputs, max_steps=1)
    assert results["int"] == 3
    assert results["op"] is None
    np.testing.assert_array_equal(results["vector"], [1.0])
    assert summaries() == [(0, "float", 1.5)]
    skipped = [r.getMessage().split()[3] for r in caplog.records if "Skipping" in r.getMessage()]
    assert skipped == ["int,", "vector,"]


def test_a_directory_has_one_writer(tmp_path):
    one, other = (str(tmp_path / name) for name in ("one", "other"))
    writer = get_summary_writer(one)
    assert get_summary_writer(one) is writer
    assert get_summary_writer(other) is not writer
    clear_summary_writers()
    assert get_summary_writer(one) is not writer
