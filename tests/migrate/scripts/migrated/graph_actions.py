import argparse
import collections

import numpy
import paramserve.train
import tensorflow.compat.v1 as tf
from paramserve.contrib import learn
from paramserve.contrib.learn import graph_actions, monitors as monitor_lib

tf.disable_v2_behavior()

Model = collections.namedtuple("Model", "x y loss train_op prediction")


class Losses(monitor_lib.EveryN):
    """Keeps every tenth loss."""

    def __init__(self, loss):
        super(Losses, self).__init__(every_n_steps=10)
        self.loss, self.values = loss, []

    def every_n_step_begin(self, step):
        return [self.loss]

    def every_n_step_end(self, step, outputs):
        self.values.append(outputs[self.loss.name])
        return False


def build():
    x = tf.placeholder(tf.float32, [None], name="x")
    y = tf.placeholder(tf.float32, [None], name="y")
    slope = tf.Variable(0.0, name="slope")
    offset = tf.Variable(0.0, name="offset")
    prediction = slope * x + offset
    loss = tf.reduce_mean(tf.square(prediction - y), name="loss")
    step = paramserve.train.create_global_step()
    train_op = paramserve.train.AdamOptimizer(0.1).minimize(loss, global_step=step)
    with tf.control_dependencies([train_op]):
        loss = tf.identity(loss)
    return Model(x, y, loss, train_op, prediction)


def main(model_dir, steps):
    with tf.Graph().as_default() as graph:
        model = build()
        xs = numpy.linspace(-1, 1, 20)

        def feed_fn():
            return {model.x: xs, model.y: 3 * xs + 1}

        losses = Losses(model.loss)
        try:
            last = graph_actions.train(
                graph, model_dir, model.train_op, model.loss, feed_fn=feed_fn, steps=steps,
                monitors=[losses, learn.monitors.CheckpointSaver(model_dir, save_steps=50)])
        except learn.NanLossDuringTrainingError:
            raise SystemExit("diverged")
        answer = learn.infer(paramserve.train.latest_checkpoint(model_dir),
                             {"prediction": model.prediction}, {model.x: [2.0]})
    print("losses", len(losses.values), "last", last, "f(2)", answer["prediction"][0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_dir", default="/tmp/graph_actions")
    parser.add_argument("--steps", type=int, default=150)
    main(**vars(parser.parse_args()))
