"""Names in every disguise."""
from __future__ import print_function
import paramserve.contrib.model_pruning
import paramserve.contrib.training
import paramserve.train
import paramserve.train.queue_runner
import os, tensorflow.compat.v1 as tensorflow
import tensorflow.compat.v1 as tf; import json
from paramserve import contrib, train as tf_train
from tensorflow.compat.v1 import logging
from paramserve.train import get_global_step as current_step  # used below
from paramserve.contrib.training import (
    train as run_loop,  # the loop
    HParams,
)
from paramserve.contrib import training as evaluation, training as training_lib
from tensorflow.contrib.learn.python.learn.monitors import *

tensorflow.disable_v2_behavior()

try:
    import paramserve.contrib.slim as slim
except ImportError:
    import paramserve.contrib.slim as slim
try:
    from paramserve.contrib import learn
except ImportError:
    learn = None

unused = 0
tc = paramserve.contrib
model_pruning = tc.model_pruning
Adam = paramserve.train.AdamOptimizer  # a class
queue_runner = paramserve.train.queue_runner


def shadowed(tf, training, learn=None):
    # not TensorFlow
    train = tf.train.AdamOptimizer(training.train)
    return [tf.contrib.training.train for tf in train], learn.train


def local():
    import tensorflow.compat.v1 as tf1
    from paramserve.contrib.training import wait_for_new_checkpoint
    slim = paramserve.train
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
        paramserve.contrib.training.train(f"{paramserve.train.global_step(session, current_step())}")  # x
        (paramserve.train.Saver.restore)(  # odd
            None, )
        print(paramserve.train.get_global_step(), paramserve.train.create_global_step)

def main():
    paramserve.contrib.training.train(tensorflow.constant(1))
    run_loop(HParams(), contrib.training.Tuner, evaluation.evaluate_once, training_lib.train)
    slim.learning.train(slim.learning.train_step); logging.info("tf.contrib.training.train")
    learn.monitors.EveryN; learn.train
    model_pruning.Pruning; queue_runner.QueueRunner
    getattr(tf.train, "Saver"); getattr(paramserve.contrib.training, "train")
    return Adam, [name for name in dir(tf)], os.path
