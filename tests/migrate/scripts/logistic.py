# Logistic regression on two clouds of points.
#
#   python logistic.py --train_dir=/tmp/logistic
"""Trains a classifier with tf.contrib.training."""

from __future__ import absolute_import
from __future__ import division
from __future__ import print_function

import numpy as np
import tensorflow as tf

flags = tf.app.flags
flags.DEFINE_string('train_dir', '/tmp/logistic', 'Where events and checkpoints go.')
flags.DEFINE_integer('max_steps', 200, 'Number of steps.')
flags.DEFINE_string('hparams', '', 'Overrides, as "learning_rate=0.3".')
FLAGS = flags.FLAGS


def points(count=64):
  rng = np.random.RandomState(0)
  labels = rng.randint(2, size=[count, 1])
  return (rng.randn(count, 4) + 2.0 * labels).astype(np.float32), labels.astype(np.float32)


def logits_of(features):
  size = features.get_shape()[1].value    # a Dimension
  with tf.variable_scope('logistic'):
    weights = tf.get_variable('weights', [size, 1], initializer=tf.zeros_initializer())
    bias = tf.get_variable('bias', [1], initializer=tf.zeros_initializer())
  return tf.nn.xw_plus_b(features, weights, bias)


def main(_):
  tf.logging.set_verbosity(tf.logging.INFO)
  hparams = tf.contrib.training.HParams(learning_rate=1.0, clip=5.0)
  hparams.parse(FLAGS.hparams)
  features, labels = points()
  loss = tf.losses.sigmoid_cross_entropy(tf.constant(labels), logits_of(tf.constant(features)))
  tf.summary.scalar('loss', loss)
  global_step = tf.train.get_or_create_global_step()
  rate = tf.train.exponential_decay(
      hparams.learning_rate, global_step, 100, 0.9, staircase=True)
  optimizer = tf.train.GradientDescentOptimizer(rate)
  train_op = tf.contrib.training.create_train_op(
      loss, optimizer,
      transform_grads_fn=tf.contrib.training.clip_gradient_norms_fn(hparams.clip))
  last_loss = tf.contrib.training.train(
      train_op, FLAGS.train_dir,
      hooks=[tf.train.StopAtStepHook(last_step=FLAGS.max_steps)],
      save_summaries_steps=50)
  print('step', FLAGS.max_steps, 'loss', last_loss)


if __name__ == '__main__':
  tf.app.run()
