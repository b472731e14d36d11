"""Evaluating a checkpoint without parameter servers."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from paramserve.chief.evaluation import evaluate
from paramserve.errors import JobFailed
from paramserve.model.spec import TaskContext, TrainSpec

v1 = tf.compat.v1

CONTEXT = TaskContext("evaluator", 0, 1, 0, True, {"batch": "4"})


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of a model `y = 3 x` after 7 steps."""
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("w", initializer=3.0)
        step = v1.train.get_or_create_global_step()
        session.run([v1.global_variables_initializer()])
        step.load(7, session)
        return v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=7)


def spec(build_evaluation):
    return TrainSpec(loss=0.0, train_op="unused", evaluate=build_evaluation)


def test_metrics_are_of_all_the_input(checkpoint):
    def build(task):
        assert task.role == "evaluator"
        numbers = tf.data.Dataset.range(10).batch(int(task.params["batch"]))  # 4, 4 and 2.
        numbers = tf.cast(v1.data.make_one_shot_iterator(numbers).get_next(), tf.float32)
        predictions = v1.get_variable("w", []) * numbers
        return {
            "mean": v1.metrics.mean(predictions),
            "error": v1.metrics.mean_absolute_error(4.0 * numbers, predictions),
        }

    metrics = evaluate(spec(build), checkpoint, CONTEXT)
    assert metrics == pytest.approx({"mean": 13.5, "error": 4.5})
    assert all(type(value) is float for value in metrics.values())


def test_lookup_tables_and_the_global_step_can_be_used(checkpoint):
    def build(task):
        words = v1.data.make_initializable_iterator(tf.data.Dataset.from_tensors("a"))
        v1.add_to_collection(v1.GraphKeys.TABLE_INITIALIZERS, words.initializer)
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["a"], [2.0]), default_value=0.0
        )
        step = tf.cast(v1.train.get_global_step(), tf.float32)
        return {"product": v1.metrics.mean(table.lookup(words.get_next()) * step)}

    assert evaluate(spec(build), checkpoint, CONTEXT) == {"product": 14.0}


def test_a_model_without_an_evaluation_has_no_metrics(checkpoint):
    assert evaluate(spec(None), checkpoint, CONTEXT) == {}


def test_a_keras_model_is_evaluated_with_what_was_trained(build_graph, cluster, tmp_path):
    def model(inputs, training):
        layers = [keras.Input((1,)), keras.layers.BatchNormalization(momentum=0.0)]
        made = keras.Sequential(layers)
        return made, made(inputs, training=training)

    def build(task):
        made, outputs = model(tf.constant([[10.0], [14.0]]), training=True)
        return TrainSpec(
            loss=tf.reduce_sum(outputs),
            optimizer=v1.train.GradientDescentOptimizer(0.0),
            keras_model=made,
            evaluate=build_evaluation,
        )

    def build_evaluation(task):
        inputs = tf.data.Dataset.from_tensors(np.array([[14.0]], "float32"))
        _, outputs = model(v1.data.make_one_shot_iterator(inputs).get_next(), training=False)
        return {"output": v1.metrics.mean(outputs)}

    built = build_graph(build)
    session = cluster.session(built.graph)
    session.run([built.init_op, built.local_init_op])
    session.run(built.train_op)
    with built.graph.as_default():
        path = built.saver.save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
    # With the averages of training: mean 12, deviation 2.
    assert evaluate(built.spec, path, CONTEXT)["output"] == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("name", ["weight", "new/weight"])
def test_names_of_the_models_own_saver_are_found(build_graph, cluster, tmp_path, name):
    def build(task):
        weight = v1.get_variable("weight", initializer=7.0)
        saver = v1.train.Saver({name: weight})
        return TrainSpec(
            loss=weight * 0.0,
            optimizer=v1.train.GradientDescentOptimizer(0.0),
            loop_args={"scaffold": v1.train.Scaffold(saver=saver)},
            evaluate=lambda task: {"weight": v1.metrics.mean(v1.get_variable("weight", []))},
        )

    def build_once(metrics):
        value, update = metrics["weight"]
        ended = tf.data.Dataset.from_tensors(0.0)
        with tf.control_dependencies([v1.data.make_one_shot_iterator(ended).get_next()]):
            return {"weight": (value, tf.identity(update))}

    built = build_graph(build)
    session = cluster.session(built.graph)
    session.run([built.init_op, built.local_init_op])
    with built.graph.as_default():
        path = built.saver.save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
    assert tf.train.load_checkpoint(path).has_tensor(name)
    spec = dataclasses.replace(
        built.spec, evaluate=lambda task: build_once(built.spec.evaluate(task))
    )
    assert evaluate(spec, path, CONTEXT, built.job_saver) == {"weight": 7.0}


def test_a_variable_that_was_not_trained_is_named(checkpoint):
    def build(task):
        return {"mean": v1.metrics.mean(v1.get_variable("renamed", []))}

    with pytest.raises(JobFailed) as caught:
        evaluate(spec(build), checkpoint, CONTEXT)
    message = str(caught.value)
    assert message.startswith("evaluation needs a variable that ")
    assert checkpoint in message
    assert "renamed" in message
    assert "\n" not in message


def test_an_evaluation_that_raises_says_where(checkpoint):
    def build(task):
        raise KeyError("no such column")

    line = build.__code__.co_firstlineno + 1
    with pytest.raises(JobFailed, match=rf"evaluation failed: KeyError: .*column.*\.py:{line}\)$"):
        evaluate(spec(build), checkpoint, CONTEXT)


def test_an_evaluation_that_returns_something_else_is_refused(checkpoint):
    def build(task):
        return {"mean": v1.get_variable("w", [])}

    with pytest.raises(JobFailed, match="evaluation failed: "):
        evaluate(spec(build), checkpoint, CONTEXT)


def test_an_op_that_fails_in_an_evaluation_is_named_with_its_line(checkpoint):
    def build(task):
        file = v1.placeholder_with_default("/no/such/file", [])
        return {"mean": v1.metrics.mean(tf.cast(tf.strings.length(tf.io.read_file(file)), "float"))}

    line = build.__code__.co_firstlineno + 2
    with pytest.raises(JobFailed) as caught:
        evaluate(spec(build), checkpoint, CONTEXT)
    assert str(caught.value) == (
        "evaluation failed: NotFoundError: /no/such/file; No such file or directory "
        f"(op 'ReadFile', made at {__file__}:{line})"
    )


def test_an_evaluation_says_how_far_it_is(checkpoint):
    def build(task):
        numbers = tf.data.Dataset.range(10).batch(4)
        return {"mean": v1.metrics.mean(v1.data.make_one_shot_iterator(numbers).get_next())}

    counts = []
    evaluate(spec(build), checkpoint, CONTEXT, on_batch=counts.append)
    assert counts == [1, 2, 3]
