# A convolutional network for images of 8x8 that is pruned while it trains.

from __future__ import division

import time

import numpy as np
import tensorflow as tf

from tensorflow.contrib.model_pruning.python import pruning
from tensorflow.contrib.model_pruning.python.layers import layers

FLAGS = tf.app.flags.FLAGS
tf.app.flags.DEFINE_string('train_dir', '/tmp/cifar10_train',
                           """Directory where to write event logs """
                           """and checkpoint.""")
tf.app.flags.DEFINE_integer('max_steps', 60, """Number of batches to run.""")
tf.app.flags.DEFINE_string(
    'pruning_hparams',
    'begin_pruning_step=10,end_pruning_step=50,pruning_frequency=5,target_sparsity=0.8,'
    'sparsity_function_begin_step=0,sparsity_function_end_step=40',
    """Comma separated list of pruning-related hyperparameters""")


def inference(images):
  conv = layers.masked_conv2d(images, 8, [3, 3], scope='conv1')
  pooled = tf.nn.max_pool(conv, [1, 2, 2, 1], [1, 2, 2, 1], 'SAME')
  flat = tf.reshape(pooled, [-1, 4 * 4 * 8])
  return layers.masked_fully_connected(flat, 2, activation_fn=None, scope='softmax_linear')


def inputs():
  rng = np.random.RandomState(1)
  labels = rng.randint(2, size=64)
  images = rng.rand(64, 8, 8, 3) + labels.reshape(-1, 1, 1, 1)
  return tf.constant(images, tf.float32), tf.constant(labels)


class _LoggerHook(tf.train.SessionRunHook):
  """Logs loss."""

  def __init__(self, loss):
    self._loss = loss

  def begin(self):
    self._step = -1
    self._start_time = time.time()

  def before_run(self, run_context):
    self._step += 1
    return tf.train.SessionRunArgs(self._loss)  # Asks for loss value.

  def after_run(self, run_context, run_values):
    if self._step % 20 == 0:
      print('step %d, loss = %.2f' % (self._step, run_values.results))


def train():
  with tf.Graph().as_default():
    global_step = tf.contrib.framework.get_or_create_global_step()
    images, labels = inputs()
    loss = tf.losses.sparse_softmax_cross_entropy(labels, inference(images))
    train_op = tf.train.AdamOptimizer(0.01).minimize(loss, global_step)

    # Parse pruning hyperparameters
    pruning_hparams = pruning.get_pruning_hparams().parse(FLAGS.pruning_hparams)
    pruning_obj = pruning.Pruning(pruning_hparams, global_step=global_step)
    mask_update_op = pruning_obj.conditional_mask_update_op()
    pruning_obj.add_pruning_summaries()
    sparsities = pruning.get_weight_sparsity()

    with tf.train.MonitoredTrainingSession(
        checkpoint_dir=FLAGS.train_dir,
        hooks=[tf.train.StopAtStepHook(last_step=FLAGS.max_steps),
               tf.train.NanTensorHook(loss),
               _LoggerHook(loss)],
        save_checkpoint_secs=30) as mon_sess:
      while not mon_sess.should_stop():
        mon_sess.run(train_op)
        # Update the masks
        if not mon_sess.should_stop():
          mon_sess.run(mask_update_op)
          reached = mon_sess.run(sparsities) if not mon_sess.should_stop() else reached
  print('sparsity', ' '.join('%.2f' % each for each in reached))


def main(argv=None):
  if tf.gfile.Exists(FLAGS.train_dir):
    tf.gfile.DeleteRecursively(FLAGS.train_dir)
  tf.gfile.MakeDirs(FLAGS.train_dir)
  train()


if __name__ == '__main__':
  tf.app.run()
