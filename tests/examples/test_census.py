"""The Census example: its data, its input, and that it learns."""

import csv
import gzip
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from paramserve import TaskContext
from paramserve.chief.evaluation import evaluate
from paramserve.contrib import model_pruning

v1 = tf.compat.v1


@pytest.fixture
def census(load_example):
    return load_example("census/wide_deep.py")


def read(path):
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def graph_text(builder, context):
    """Every constant of a graph, its functions' too, which is where its file names are."""
    with tf.Graph().as_default() as graph:
        v1.train.get_or_create_global_step()
        builder(context)
        return graph.as_graph_def().SerializeToString()


@pytest.mark.parametrize(
    ("name", "count", "positive"), [("TRAIN_FILE", 32_561, 0.2408), ("TEST_FILE", 16_281, 0.2362)]
)
def test_the_files_hold_the_official_split(census, name, count, positive):
    rows = read(getattr(census, name))
    assert len(rows) == count
    assert tuple(rows[0]) == census.COLUMNS
    assert {row[census.LABEL] for row in rows} == {"0", "1"}
    assert np.mean([int(row[census.LABEL]) for row in rows]) == pytest.approx(positive, abs=1e-4)


def test_training_never_opens_the_test_file(census):
    training = graph_text(census.build, TaskContext())
    assert b"train.csv.gz" in training
    assert b"test.csv.gz" not in training


def test_evaluation_never_opens_the_training_file(census):
    evaluation = graph_text(census.evaluate, TaskContext(role="evaluator"))
    assert b"test.csv.gz" in evaluation
    assert b"train.csv.gz" not in evaluation


def count(batch):
    """Returns how often each row occurs in a batch."""
    columns = [batch["numbers"], batch["wide_ids"], batch["deep_ids"], batch["label"][:, None]]
    rows = np.concatenate([np.asarray(column, np.float64) for column in columns], axis=1)
    return Counter(row.tobytes() for row in rows)


def first_epoch(census, index):
    """The rows of one worker of two: its first batch is as large as its share."""
    share = 32_561 // 2 + (index % 2 == 0)
    context = TaskContext(index=index, num_workers=2)
    settings = census.Settings(batch_size=share)
    return count(next(iter(census.training_batches(context, settings))))


def test_workers_share_the_rows_without_remainder_or_overlap(census):
    features = census.features_of(census.Settings())
    rows = count(next(iter(census.lines(census.TRAIN_FILE).batch(40_000).map(features))))
    assert first_epoch(census, 0) + first_epoch(census, 1) == rows


def test_a_worker_that_joins_late_shares_a_share(census):
    assert first_epoch(census, 2) == first_epoch(census, 0)


def test_rows_come_in_another_order_in_each_worker_and_epoch(census):
    def labels(index, seed):
        # Of eight workers; 8 joined late and shares the rows of 0, all in one batch.
        context = TaskContext(index=index, num_workers=8)
        settings = census.Settings(batch_size=4071, seed=seed)
        batches = iter(census.training_batches(context, settings))
        return [next(batches)["label"].numpy() for _ in range(2)]

    first, second = labels(0, 1)
    assert first.sum() == second.sum()
    assert (first != second).any()
    assert (labels(8, 1)[0] != first).any()
    assert (labels(0, 2)[0] != first).any()
    assert (labels(0, 1)[0] == first).all()


def test_it_learns_and_evaluates_every_test_row_once(census, train):
    context = TaskContext(params={"batch_size": "256"})
    spec, losses, checkpoint = train(census.build, 300, context)
    assert np.mean(losses[-50:]) < 0.8 * np.mean(losses[:10])

    result = evaluate(spec, checkpoint, TaskContext(role="evaluator", params=context.params))

    assert result["rows"] == 16_281
    # A constant answer reaches 0.764; far beyond 0.86 the test rows would have leaked.
    assert 0.84 < result["accuracy"] < 0.88
    assert 0.89 < result["auc"] < 0.94


def test_a_seed_gives_the_same_model_again(census, train):
    _, once, _ = train(census.build, 5)
    _, again, _ = train(census.build, 5)
    assert once == pytest.approx(again, rel=1e-5)


def test_settings_come_from_params(census):
    settings = census.Settings.parse({"batch_size": "32", "learning_rate": "0.5"})
    assert settings == census.Settings(batch_size=32, learning_rate=0.5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"batchsize": "32"}, "unknown --param batchsize=32; known are batch_size, learning_rate"),
        ({"batch_size": "many"}, "batch_size=many: expected a whole number above 0, for example"),
        ({"batch_size": "0"}, "batch_size=0: expected a whole number above 0"),
        ({"batch_size": "1.5"}, "batch_size=1.5: expected a whole number"),
        ({"learning_rate": "-1"}, "learning_rate=-1: expected a number above 0"),
        ({"learning_rate": "nan"}, "learning_rate=nan: expected a number above 0"),
        ({"learning_rate": "inf"}, "learning_rate=inf: expected a number above 0"),
    ],
)
def test_a_wrong_param_is_named_with_what_was_expected(census, params, message):
    with pytest.raises(ValueError, match=message):
        census.build(TaskContext(params=params))


def test_the_pruned_model_loses_half_of_its_network_and_hardly_any_accuracy(
    load_example, train, tmp_path
):
    """In one process and on a faster schedule; the example's README has the figures of jobs."""
    census, pruned = load_example("census/wide_deep.py"), load_example("census/pruned.py")
    context = TaskContext(params={"batch_size": "256"})
    evaluator = TaskContext(role="evaluator", params=context.params)
    unpruned, _, checkpoint = train(census.build, 300, context)
    plain = evaluate(unpruned, checkpoint, evaluator)

    with tf.Graph().as_default():
        step = v1.train.get_or_create_global_step()
        spec = pruned.build(context)
        with tf.control_dependencies([spec.optimizer.minimize(spec.loss, step)]):
            train_op = tf.identity(spec.loss)
        hparams = model_pruning.get_pruning_hparams().parse(
            "sparsity_function_begin_step=20,sparsity_function_end_step=200,pruning_frequency=10"
        )
        mask_update = model_pruning.Pruning(hparams).conditional_mask_update_op()
        logdir = str(tmp_path / "pruned")
        model_pruning.train(
            train_op, logdir, mask_update, number_of_steps=300, log_every_n_steps=100
        )
    metrics = evaluate(spec, f"{logdir}/model.ckpt-300", evaluator)

    assert metrics["rows"] == 16_281
    assert metrics["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert metrics["accuracy"] > plain["accuracy"] - 0.01
