"""One task of an ordinary, static TensorFlow cluster, as the fork server runs it.

A task is a JSON object: cluster, job, index, and for all but parameter servers: loop, logdir,
last_step, step_secs, save_secs, sync, max_wait_secs. It writes one JSON object a line.
"""

import json
import logging
import time

import numpy as np
import tensorflow as tf

from paramserve.contrib import learn, model_pruning, training

v1 = tf.compat.v1
LABELS = [[1.0], [0.0], [1.0], [0.0]]


def say(event, **values):
    print(json.dumps({"event": event, "time": time.time(), **values}), flush=True)


def run_task(text):
    task = json.loads(text)
    logging.basicConfig(level=logging.INFO)
    threads = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=2)
    server = v1.train.Server(task["cluster"], task["job"], task["index"], config=threads)
    say("up")
    if task["job"] == "ps":
        time.sleep(3600)  # Ended by the test.
    device = f"/job:{task['job']}/task:{task['index']}"
    place = v1.train.replica_device_setter(cluster=task["cluster"], worker_device=device)
    with tf.Graph().as_default(), v1.device(place):
        model = Model(task, device)
        loss = LOOPS[task["loop"]](model, task, server.target)
        say("done", loss=float(loss), **model.pruned(server.target))


class Model:
    """Four examples, of which the first feature tells the label; half of the weights are noise."""

    def __init__(self, task, device):
        features = tf.constant([[1.0, 0.1], [0.0, 0.1], [1.0, -0.1], [0.0, -0.1]])
        weights = v1.get_variable("weights", [2, 1], initializer=v1.zeros_initializer())
        bias = v1.get_variable("bias", [1], initializer=v1.zeros_initializer())
        self.step = v1.train.get_or_create_global_step()
        self._device = device
        self._is_pruned = task["loop"] == "model_pruning"
        used = model_pruning.apply_mask(weights) if self._is_pruned else weights
        self.loss = tf.reduce_mean(
            tf.nn.sigmoid_cross_entropy_with_logits(labels=LABELS, logits=features @ used + bias)
        )
        optimizer = v1.train.GradientDescentOptimizer(0.5)
        if task["sync"]:
            optimizer = v1.train.SyncReplicasOptimizer(optimizer, 2, 2)
        self.optimizer = optimizer
        self.update = self._narrated(
            optimizer.minimize(self.loss, global_step=self.step), device, task["step_secs"]
        )
        with tf.control_dependencies([self.update]):
            self.train_op = tf.identity(self.loss)

    def _narrated(self, update, device, secs):
        """Reports each step, whichever loop makes it, and makes it last `secs`."""

        def tell(step):
            say("step", step=int(step))
            time.sleep(secs)
            return np.int64(step)

        with tf.control_dependencies([update]), v1.device(device):
            return tf.numpy_function(tell, [self.step.read_value()], tf.int64, stateful=True).op

    def pruned(self, target):
        """Returns the masks on the parameter servers, as this task reads them."""
        if not self._is_pruned:
            return {}
        # The other tasks may have ended.
        config = v1.ConfigProto(device_filters=["/job:ps", self._device])
        with v1.Session(target, config=config) as session:
            [mask] = session.run(model_pruning.get_masks())
        return {"mask": mask.ravel().tolist()}


def train_training(model, task, target):
    hooks = [v1.train.StopAtStepHook(last_step=task["last_step"])]
    if task["sync"]:
        hooks.append(model.optimizer.make_session_run_hook(task["job"] == "chief"))
    return training.train(
        model.train_op,
        task["logdir"],
        master=target,
        is_chief=task["job"] == "chief",
        hooks=hooks,
        save_checkpoint_secs=task["save_secs"],
        max_wait_secs=task["max_wait_secs"],
    )


def train_learn(model, task, target):
    return learn.train(
        tf.compat.v1.get_default_graph(),
        task["logdir"],
        model.update,
        model.loss,
        supervisor_is_chief=task["job"] == "chief",
        supervisor_master=target,
        supervisor_save_model_secs=task["save_secs"],
        max_steps=task["last_step"],
        log_every_steps=1000,
    )


def train_pruning(model, task, target):
    settings = "begin_pruning_step=0,pruning_frequency=5,sparsity_function_end_step=40"
    hparams = model_pruning.get_pruning_hparams().parse(settings)
    pruning = model_pruning.Pruning(hparams, global_step=model.step)
    return model_pruning.train(
        model.train_op,
        task["logdir"],
        pruning.conditional_mask_update_op(),
        log_every_n_steps=1000,
        master=target,
        is_chief=task["job"] == "chief",
        number_of_steps=task["last_step"],
        save_interval_secs=task["save_secs"],
        sync_optimizer=model.optimizer if task["sync"] else None,
    )


LOOPS = {"training": train_training, "learn": train_learn, "model_pruning": train_pruning}
