"""Examples as a job uses them: loaded from their file, trained here in one process."""

import sys
from pathlib import Path

import pytest
import tensorflow as tf

from paramserve import TaskContext
from paramserve.model.keras_updates import collect_updates, reset_names, trainable_values
from paramserve.model.references import load_build

v1 = tf.compat.v1
EXAMPLES = Path(__file__).parents[2] / "examples"


class Training:
    """A few steps of one worker, without parameter servers."""

    def __init__(self, build, directory):
        self.build = build
        self.directory = directory

    def run(self, steps, context=None, *, with_keras_updates=True):
        """Trains a new model; returns the spec, the loss of each step, and a checkpoint."""
        reset_names()
        with tf.Graph().as_default():
            global_step = v1.train.get_or_create_global_step()
            spec = self.build(context or TaskContext())
            variables, updates = None, []
            if spec.keras_model is not None:
                variables = trainable_values(spec.keras_model)
                updates = collect_updates(spec.keras_model) if with_keras_updates else []
            step = tf.group(
                spec.optimizer.minimize(spec.loss, global_step, var_list=variables), *updates
            )
            saver = v1.train.Saver()
            with v1.Session(config=one_thread()) as session:
                session.run([v1.global_variables_initializer(), v1.tables_initializer()])
                losses = [session.run([spec.loss, step])[0] for _ in range(steps)]
                path = saver.save(session, str(self.directory / "model.ckpt"), steps)
        return spec, losses, path


def one_thread():
    return v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)


@pytest.fixture
def load_example():
    """Loads an example by its path under examples/; returns its module."""

    def load(path):
        return sys.modules[load_build(f"{EXAMPLES / path}:build").__module__]

    paths, modules = list(sys.path), set(sys.modules)
    yield load
    sys.path[:] = paths
    for name in ("wide_deep", "pruned", "keras_spirals"):
        if name not in modules:
            sys.modules.pop(name, None)


@pytest.fixture
def train(tmp_path):
    """Trains the model of a build function, as `Training.run` does."""
    return lambda build, steps, context=None, **options: Training(build, tmp_path).run(
        steps, context, **options
    )
