"""Ray's documented parameter-server pattern: actors that exchange lists of arrays.

https://docs.ray.io/en/latest/ray-core/examples/plot_parameter_server.html: a server actor that
applies gradients and returns weights, worker actors that compute gradients, and a driver that
passes references from one to the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import ray

from ..task import Task
from ..workloads.catalog import find_workload

_OBJECT_STORE_BYTES = 4 << 30


class ParameterServer:
    """Holds the weights.

    Args:
        workload: Name of the workload.
    """

    def __init__(self, workload: str) -> None:
        spec = find_workload(workload)
        random = np.random.default_rng(0)
        self._rate = np.float32(spec.learning_rate)
        self._weights: list[np.ndarray] = [
            random.uniform(-each.scale, each.scale, each.shape).astype(np.float32)
            for each in spec.variables
        ]

    def apply_gradients(self, *gradients: list[np.ndarray]) -> list[np.ndarray]:
        """Adds up the workers' gradients, descends, and returns the new weights."""
        for index, weight in enumerate(self._weights):
            total = sum((each[index] for each in gradients[1:]), gradients[0][index])
            self._weights[index] = weight - self._rate * total
        return self._weights

    def get_weights(self) -> list[np.ndarray]:
        """Returns the current weights."""
        return self._weights


class Worker:
    """Computes gradients.

    Args:
        workload: Name of the workload.
        threads: Threads of one operation.
    """

    def __init__(self, workload: str, threads: int) -> None:
        import tensorflow as tf

        from .graph import take_batch

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(2)
        spec = find_workload(workload)
        names = [each.name for each in spec.variables]
        shapes = [tf.TensorSpec(each.shape, tf.float32) for each in spec.variables]

        def gradients(*weights: Any) -> list[Any]:
            assert spec.tf_loss is not None
            variables = dict(zip(names, weights, strict=True))
            with tf.GradientTape() as tape:
                tape.watch(weights)
                loss = spec.tf_loss(variables, take_batch(spec))
            return tape.gradient(loss, weights)

        self._gradients = tf.function(gradients, input_signature=shapes)

    def compute_gradients(self, weights: list[np.ndarray]) -> list[np.ndarray]:
        """Computes the gradients of the loss of one batch."""
        return [each.numpy() for each in self._gradients(*weights)]


def run(task: Task) -> None:
    """Runs the driver, which starts Ray and the actors."""
    workers = int(task.options["workers"])
    ray.init(
        address="local",
        num_cpus=workers + 1,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=f"{task.folder}/r",
    )
    server = ray.remote(num_cpus=1)(ParameterServer).remote(task.workload)
    worker_class = ray.remote(num_cpus=1)(Worker)
    actors = [worker_class.remote(task.workload, task.threads) for _ in range(workers)]
    # All are up before the first step.
    ray.get([each.compute_gradients.remote(server.get_weights.remote()) for each in actors])
    task.is_open()
    make = _sync_step if task.mode == "sync" else _async_step
    task.train(make(server, actors), None)


def _sync_step(server: Any, actors: list[Any]) -> Callable[[], None]:
    weights = server.get_weights.remote()

    def step() -> None:
        nonlocal weights
        gradients = [each.compute_gradients.remote(weights) for each in actors]
        weights = server.apply_gradients.remote(*gradients)
        # Without this the driver would run ahead of the actors without end.
        ray.wait([weights])

    return step


def _async_step(server: Any, actors: list[Any]) -> Callable[[], None]:
    weights = server.get_weights.remote()
    running = {each.compute_gradients.remote(weights): each for each in actors}

    def step() -> None:
        ready, _ = ray.wait(list(running))
        actor = running.pop(ready[0])
        weights = server.apply_gradients.remote(ready[0])
        running[actor.compute_gradients.remote(weights)] = actor

    return step
