"""Names in every disguise."""
from __future__ import print_function
import os, tensorflow
import tensorflow.contrib.training
import tensorflow as tf; import json
from tensorflow import contrib, logging, train as tf_train
from tensorflow.contrib import framework as contrib_framework
from tensorflow.contrib.framework import get_global_step as current_step  # used below
from tensorflow.contrib.training import (
    train as run_loop,  # the loop
    HParams,
)
from tensorflow.contrib.training.python.training import evaluation, training as training_lib
from tensorflow.contrib.learn.python.learn.monitors import *

try:
    import tensorflow.contrib.slim as slim
except ImportError:
    import tf_slim as slim
try:
    from tensorflow.contrib import learn
except ImportError:
    learn = None

unused = 0
tc = tf.contrib
model_pruning = tc.model_pruning
Adam = tf.train.AdamOptimizer  # a class
queue_runner = tf.train.queue_runner


def shadowed(tf, training, learn=None):
    # not TensorFlow
    train = tf.train.AdamOptimizer(training.train)
    return [tf.contrib.training.train for tf in train], learn.train


def local():
    import tensorflow as tf1
    from tensorflow.contrib.training import wait_for_new_checkpoint
    slim = tf1.train
    return slim.Saver(), wait_for_new_checkpoint, slim.get_checkpoint_state

def reassigned(flag):
    module = tf.contrib.training
    if flag:
        module = json
    return module.train

class Hook(tf_train.SessionRunHook):
    tf = None

    def end(self, session):
        self.tf.train.Saver().save(session, tf="tf.train.Saver")
        tf.contrib.training \
            .train(f"{tf.train.global_step(session, current_step())}")  # x
        (tf.train.Saver.restore)(  # odd
            None, )
        print(contrib.framework.get_global_step(), contrib_framework.create_global_step)

def main():
    tensorflow.contrib.training.train(tensorflow.constant(1))
    run_loop(HParams(), contrib.training.Tuner, evaluation.evaluate_once, training_lib.train)
    slim.learning.train(slim.learning.train_step); logging.info("tf.contrib.training.train")
    learn.monitors.EveryN; learn.train
    model_pruning.Pruning; queue_runner.QueueRunner
    getattr(tf.train, "Saver"); getattr(tf.contrib.training, "train")
    return Adam, [name for name in dir(tf)], os.path
