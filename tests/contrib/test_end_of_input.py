"""Every loop says in its log that the input has ended."""

import logging

import pytest
import tensorflow as tf

from paramserve.contrib import learn, slim, training

v1 = tf.compat.v1


def train_in_training(loss, train_op, logdir):
    training.train(train_op, logdir)


def train_in_learn(loss, train_op, logdir):
    learn.train(
        tf.compat.v1.get_default_graph(), logdir, train_op, loss, v1.train.get_global_step()
    )


def train_in_slim(loss, train_op, logdir):
    slim.learning.train(train_op, logdir)


@pytest.mark.parametrize("train", [train_in_training, train_in_learn, train_in_slim])
def test_the_end_of_the_input_is_said_once(train, tmp_path, caplog):
    with tf.Graph().as_default(), caplog.at_level(logging.INFO, "paramserve"):
        numbers = tf.data.Dataset.range(3)
        number = tf.cast(v1.data.make_one_shot_iterator(numbers).get_next(), tf.float32)
        loss = v1.get_variable("w", initializer=1.0) * number
        step = v1.train.get_or_create_global_step()
        optimizer = v1.train.GradientDescentOptimizer(0.1)
        train(loss, slim.learning.create_train_op(loss, optimizer, global_step=step), str(tmp_path))
    assert caplog.text.count("The input has ended (End of sequence); so does training.") == 1
