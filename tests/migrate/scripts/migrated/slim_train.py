"""A small perceptron, trained with slim's loop."""
import sys

import paramserve.train
import tensorflow.compat.v1 as tf
import paramserve.contrib.slim as slim

tf.disable_v2_behavior()


def layer(x, size, name, activation=tf.nn.relu):
    with tf.variable_scope(name):
        w = tf.get_variable("w", [x.shape[1].value, size],
                            initializer=tf.truncated_normal_initializer(stddev=0.5, seed=1))
        b = tf.get_variable("b", [size], initializer=tf.zeros_initializer())
        tf.add_to_collection(tf.GraphKeys.REGULARIZATION_LOSSES, 1e-4 * tf.nn.l2_loss(w))
    return activation(tf.matmul(x, w) + b)


def train_step(session, train_op, global_step, kwargs):
    train_step.calls += 1
    return slim.learning.train_step(session, train_op, global_step, kwargs)


train_step.calls = 0

if __name__ == "__main__":
    logdir = sys.argv[1]
    tf.set_random_seed(0)
    # exclusive or
    inputs = tf.constant([[0., 0.], [0., 1.], [1., 0.], [1., 1.]])
    labels = tf.constant([[0.], [1.], [1.], [0.]])
    logits = layer(layer(inputs, 8, "hidden"), 1, "out", activation=tf.identity)
    tf.losses.sigmoid_cross_entropy(labels, logits)
    total_loss = tf.losses.get_total_loss()
    step = paramserve.train.get_or_create_global_step()
    train_op = slim.learning.create_train_op(
        total_loss, paramserve.train.MomentumOptimizer(0.5, 0.9),
        global_step=step, clip_gradient_norm=4, summarize_gradients=True)
    loss = slim.learning.train(
        train_op, logdir, train_step_fn=train_step, number_of_steps=100, log_every_n_steps=25,
        save_summaries_secs=1, save_interval_secs=600,
        session_config=tf.ConfigProto(allow_soft_placement=True))
    print("calls", train_step.calls, "loss", loss)
