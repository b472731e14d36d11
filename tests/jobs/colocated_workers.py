"""One of two workers of a static cluster that hold the parameters themselves.

Arguments: a folder, and the worker's index. The folder has the workers' addresses; the worker
leaves there what one of its steps received, and the weights that it ends with.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from paramserve.contrib import training
from paramserve.data_plane.colocation import on_workers, stay_until_all_are_done
from paramserve.train import SyncReplicasOptimizer

v1 = tf.compat.v1
STEPS = 20


class Transfers(v1.train.SessionRunHook):
    """Notes how many bytes of the model one step sends between tasks, and in how many tensors."""

    def __init__(self, index):
        self._index = index
        self._steps = 0
        self.found = {"pulled": [], "pushed": []}

    def before_run(self, run_context):
        self._steps += 1
        options = v1.RunOptions(output_partition_graphs=True) if self._steps == 5 else None
        return v1.train.SessionRunArgs(None, options=options)

    def after_run(self, run_context, run_values):
        if self._steps != 5:
            return
        graph = v1.get_default_graph()
        for node in (n for g in run_values.run_metadata.partition_graphs for n in g.node):
            if node.op != "_Recv" or _task(node, "send") == _task(node, "recv"):
                continue
            name = re.sub(r"^edge_\d+_", "", node.attr["tensor_name"].s.decode())
            size = _bytes(graph, name)
            if size > 8:  # What is smaller is a step number.
                way = "pulled" if _task(node, "recv") == self._index else "pushed"
                self.found[way].append(size)


class StopAfterOwnSteps(v1.train.SessionRunHook):
    def __init__(self, steps):
        self._left = steps

    def after_run(self, run_context, run_values):
        self._left -= 1
        if self._left <= 0:
            run_context.request_stop()


def _task(node, end):
    return tf.DeviceSpec.from_string(node.attr[f"{end}_device"].s.decode()).task


def _bytes(graph, name):
    """0 for a control edge, and for what TensorFlow made of a step number's condition."""
    operations = {op.name: op for op in graph.get_operations()}
    outputs = operations[name].outputs if name in operations else ()
    return outputs[0].shape.num_elements() * outputs[0].dtype.size if outputs else 0


def train(mode, master, folder, index):
    with tf.Graph().as_default(), on_workers(2, index), v1.variable_scope(mode):
        step = v1.train.get_or_create_global_step()
        x = np.random.RandomState(index).randn(8, 50).astype(np.float32)
        weights = [
            v1.get_variable(f"weights{k}", [50, 30], initializer=v1.zeros_initializer())
            for k in range(4)
        ]
        loss = tf.add_n([tf.reduce_mean((x @ w - (k + 1)) ** 2) for k, w in enumerate(weights)])
        optimizer = v1.train.GradientDescentOptimizer(1.0)
        transfers = Transfers(index)
        # Async, a fast worker could make all steps: each makes its own.
        own, common = StopAfterOwnSteps(STEPS), v1.train.StopAtStepHook(last_step=STEPS)
        hooks = [common if mode == "sync" else own, transfers]
        if mode == "sync":
            optimizer = SyncReplicasOptimizer(
                optimizer, 2, 2, one_gradient_per_worker=True, worker_index=index
            )
        update = optimizer.minimize(loss, global_step=step)
        if mode == "sync":
            hooks.append(optimizer.make_session_run_hook(index == 0))
        with tf.control_dependencies([update]):
            train_op = tf.identity(loss)
        logdir = str(folder / mode)
        training.train(train_op, logdir, master=master, is_chief=index == 0, hooks=hooks)
    stay_until_all_are_done(master, 2, index, max_wait_secs=60)
    return transfers.found


def main(folder, index):
    addresses = json.loads((folder / "addresses").read_text())
    server = v1.train.Server({"ps": addresses}, "ps", index)
    found = {mode: train(mode, server.target, folder, index) for mode in ("async", "sync")}
    (folder / f"found-{index}").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
