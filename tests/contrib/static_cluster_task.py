"""One task of an ordinary, static TensorFlow cluster; run by the tests as a process.

Reads one JSON object from its command line: cluster, job, index, and for all but parameter servers
logdir, last_step, step_secs, max_wait_secs. Writes one JSON object a line. A parameter server ends
when its standard input does.
"""

import json
import logging
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from paramserve.contrib.training import train

v1 = tf.compat.v1


def say(event, **values):
    print(json.dumps({"event": event, "time": time.time(), **values}), flush=True)


class Narrator(v1.train.SessionRunHook):
    """Tells each new session's and each step's global step, and takes its time over a step."""

    def __init__(self, step_secs):
        self._step_secs = step_secs

    def begin(self):
        self._step = v1.train.get_global_step()

    def after_create_session(self, session, coord):
        say("session", step=int(session.run(self._step)))

    def before_run(self, run_context):
        return v1.train.SessionRunArgs(self._step)

    def after_run(self, run_context, run_values):
        say("step", step=int(run_values.results))
        time.sleep(self._step_secs)


def build_loss():
    features = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    logits = features @ v1.get_variable("weights", [2, 1]) + v1.get_variable("bias", [1])
    labels = tf.constant([[1.0], [0.0]])
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))


def run(task, server):
    device = f"/job:{task['job']}/task:{task['index']}"
    place = v1.train.replica_device_setter(cluster=task["cluster"], worker_device=device)
    with tf.Graph().as_default(), v1.device(place):
        loss = build_loss()
        step = v1.train.get_or_create_global_step()
        update = v1.train.GradientDescentOptimizer(0.5).minimize(loss, global_step=step)
        with tf.control_dependencies([update]):
            train_op = tf.identity(loss)
        stop = v1.train.StopAtStepHook(last_step=task["last_step"])
        last_loss = train(
            train_op,
            task["logdir"],
            master=server.target,
            is_chief=task["job"] == "chief",
            hooks=[stop, Narrator(task["step_secs"])],
            save_checkpoint_secs=1,
            max_wait_secs=task["max_wait_secs"],
        )
    say("done", loss=float(last_loss))


def main():
    logging.basicConfig(level=logging.INFO)
    task = json.loads(sys.argv[1])
    threads = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    server = v1.train.Server(task["cluster"], task["job"], task["index"], config=threads)
    say("up")
    if task["job"] == "ps":
        sys.stdin.read()
        os._exit(0)
    run(task, server)


main()
