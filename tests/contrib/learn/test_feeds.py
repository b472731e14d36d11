"""`contrib.learn.run_feeds` and its kin: outputs of a model without training."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve.contrib.learn import infer, run_feeds, run_n, train
from paramserve.contrib.learn.graph_actions import run_feeds_iter

v1 = tf.compat.v1


@pytest.fixture
def inference(counter):
    """Twice its input, plus 5, plus a local 1."""
    counter.feature = v1.placeholder_with_default(2.0, [])
    bias = v1.get_variable("bias", initializer=5.0)
    local = v1.get_local_variable("local", initializer=1.0)
    counter.outputs = {"twice": counter.feature * 2, "sum": counter.feature + bias + local}
    return counter


def test_infer(inference):
    assert infer(None, inference.outputs) == {"twice": 4.0, "sum": 8.0}
    assert infer(None, inference.outputs, {inference.feature: 4.0}) == {"twice": 8.0, "sum": 10.0}


def test_each_feed_gives_a_result(inference):
    feeds = [{inference.feature: value} for value in (1.0, 3.0)]
    expected = [{"twice": 2.0, "sum": 7.0}, {"twice": 6.0, "sum": 9.0}]
    assert run_feeds(inference.outputs, feeds) == expected
    assert list(run_feeds_iter(inference.outputs, iter(feeds))) == expected


@pytest.mark.parametrize("n", [0, 1, 3])
def test_run_n_runs_in_one_session(inference, n):
    results = run_n({"step": inference.step.assign_add(1)}, n=n)
    assert results == [{"step": step} for step in range(1, n + 1)]
    assert run_n(inference.outputs, {inference.feature: 0.0}) == [{"twice": 0.0, "sum": 6.0}]


@pytest.mark.parametrize("default", ["its own", "another"])
def test_the_graph_is_that_of_the_outputs(inference, graph, default):
    with graph.as_default() if default == "its own" else tf.Graph().as_default():
        before = v1.get_default_graph()
        iterator = run_feeds_iter(inference.outputs, [None, None])
        assert next(iterator) == {"twice": 4.0, "sum": 8.0}
        assert v1.get_default_graph() is before
        iterator.close()


def test_the_session_is_the_default_one_between_the_values(inference):
    with tf.Graph().as_default(), v1.Session() as outer:
        for feed in ({inference.feature: 1.0}, None):
            for outputs in run_feeds_iter(inference.outputs, [feed]):
                assert outputs["twice"] == inference.outputs["twice"].eval(feed)
                assert inference.outputs["sum"].eval() == 8.0
                with v1.Session().as_default() as inner:
                    assert v1.get_default_session() is inner
            assert v1.get_default_session() is outer
        for _ in run_feeds_iter(inference.outputs, [None, None]):
            break
        assert v1.get_default_session() is outer


def test_a_finalized_graph_will_do(inference, graph):
    graph.finalize()
    assert infer(None, inference.outputs)["sum"] == 8.0


@pytest.mark.parametrize("path", ["{dir}", "{dir}/model.ckpt-2"])
def test_a_checkpoint_is_restored(graph, output_dir, inference, path):
    train(graph, output_dir, inference.train_op, inference.loss, max_steps=2)
    path = path.format(dir=output_dir)
    assert infer(path, {"step": inference.step}) == {"step": 2}
    assert run_n({"step": inference.step}, restore_checkpoint_path=path) == [{"step": 2}]


def test_tables_and_queues_are_ready(inference):
    table = tf.lookup.StaticVocabularyTable(
        tf.lookup.KeyValueTensorInitializer(["a", "b"], np.int64([0, 1])), 1
    )
    word = v1.train.string_input_producer(["b", "a"], shuffle=False).dequeue()
    assert run_n({"id": table.lookup(word)}, n=3) == [{"id": 1}, {"id": 0}, {"id": 1}]


def test_mistakes_are_named(inference, tmp_path):
    with pytest.raises(ValueError, match="feed_dicts"):
        run_feeds(inference.outputs, [])
    with pytest.raises(ValueError, match="output_dict"):
        run_feeds_iter({}, [None])
    with pytest.raises(ValueError, match=r"output_dict\['sum'\] is 'sum:0', expected a tensor"):
        infer(None, {"sum": "sum:0"})
    with tf.Graph().as_default():
        elsewhere = tf.constant(1.0)
    with pytest.raises(ValueError, match="outputs of 2 graphs"):
        infer(None, {**inference.outputs, "elsewhere": elsewhere})
    with pytest.raises(ValueError, match="neither a checkpoint nor a directory"):
        infer(str(tmp_path), inference.outputs)
    with pytest.raises(TypeError):
        infer(None, inference.outputs, {None: 1.0})


def test_queues_end_when_the_consumer_raises(inference):
    word = v1.train.string_input_producer(["a"], shuffle=False).dequeue()
    iterator = run_feeds_iter({"word": word}, [None] * 5)
    next(iterator)
    with pytest.raises(KeyError):
        iterator.throw(KeyError("the consumer's"))
    assert list(iterator) == []
