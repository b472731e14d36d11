import paramserve.contrib.slim.learning
import tensorflow.compat.v1 as tf
from tensorflow.contrib import rnn, slim
from tensorflow.examples.tutorials.mnist import input_data
from tensorflow.python.training import session_run_hook
from tensorflow.python.training.adam import AdamOptimizer
from tensorflow.contrib.layers import *
import importlib

tf.disable_v2_behavior()

mnist = input_data.read_data_sets("/tmp/data", one_hot=True)
seq2seq = importlib.import_module("tensorflow.contrib.seq2seq")


def model(x, is_training):
    with slim.arg_scope([slim.conv2d], padding="SAME"):
        net = slim.conv2d(x, 32, [5, 5])
    net = tf.layers.dense(net, 10)
    net = tf.contrib.layers.batch_norm(net, is_training=is_training)
    cell = rnn.BasicLSTMCell(10)
    cells = tf.nn.rnn_cell.MultiRNNCell([cell])
    estimator = tf.estimator.Estimator(model_fn=None)
    step = getattr(tf, "train").get_global_step()
    names = vars(tf.train)
    product = tf.mul(net, net)
    return paramserve.contrib.slim.learning.create_train_op(product, AdamOptimizer()), tf.contrib.learn.Estimator
