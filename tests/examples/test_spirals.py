"""The Keras example: its moving averages really move, and evaluation depends on them."""

import numpy as np
import pytest
import tensorflow as tf

from paramserve import TaskContext
from paramserve.chief.evaluation import evaluate
from paramserve.model.keras_updates import reset_names

v1 = tf.compat.v1
EVALUATOR = TaskContext(role="evaluator")


@pytest.fixture
def spirals(load_example):
    return load_example("spirals/keras_spirals.py")


def test_it_learns_with_moving_averages_that_move(spirals, train):
    spec, losses, checkpoint = train(spirals.build, 200)
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])

    values = tf.train.load_checkpoint(checkpoint)
    # Points lie around the middle of the picture, 200 pixels far at most.
    assert values.get_tensor("spirals/scale/moving_mean") == pytest.approx([320, 240], abs=15)
    assert (values.get_tensor("spirals/scale/moving_variance") > 1000).all()
    assert values.get_tensor("seed_generator/seed_generator_state")[1] == 200
    assert evaluate(spec, checkpoint, EVALUATOR)["accuracy"] > 0.9


def test_without_the_updates_evaluation_is_a_guess(spirals, train):
    spec, losses, checkpoint = train(spirals.build, 200, with_keras_updates=False)
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])

    values = tf.train.load_checkpoint(checkpoint)
    assert (values.get_tensor("spirals/scale/moving_mean") == 0).all()
    assert evaluate(spec, checkpoint, EVALUATOR)["accuracy"] < 0.6


def test_every_build_of_a_process_has_the_same_variable_names(spirals):
    def names(builder, context):
        reset_names()
        with tf.Graph().as_default():
            builder(context)
            return {variable.op.name for variable in v1.global_variables()}

    trained = names(spirals.build, TaskContext())
    assert names(spirals.build, TaskContext(index=1, num_workers=2)) == trained
    assert names(spirals.evaluate, EVALUATOR) == trained
    assert "spirals/hidden_1/kernel" in trained


def test_streams_differ_and_repeat(spirals):
    def points(stream):
        with tf.Graph().as_default(), v1.Session() as session:
            return session.run(spirals.spirals(stream=stream))

    (first, arms), (second, _), (again, _) = points(0), points(1), points(0)
    assert not np.isclose(first, second).any(axis=None)
    assert (first == again).all()
    assert set(arms) == {0, 1, 2}
