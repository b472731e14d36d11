"""Hooks that the service adds to each step of a worker: reports and stopping."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..errors import JobFailed
from ..model.graph import TrainGraph
from ..protos import membership_pb2 as pb
from .activity import Activity
from .metrics import WorkerMetrics

v1 = tf.compat.v1


class ReportHook(tf.compat.v1.train.SessionRunHook):
    """Hook that counts this worker's steps and examples, and keeps the newest loss.

    Its fetches ride along with each step, so it costs no run of its own.

    Args:
        metrics: Metrics for Prometheus.
        activity: The activity to report; None: it is not reported.

    Attributes:
        built: The worker's graph; to be set before the first step, and at each change of the graph.
    """

    built: TrainGraph

    def __init__(self, metrics: WorkerMetrics, activity: Activity | None = None) -> None:
        self._metrics = metrics
        self._activity = activity or Activity()
        self._report = pb.WorkerReport()
        self._lock = threading.Lock()
        self._sessions = 0
        self._started = 0.0
        self.global_step = 0

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Counts sessions: each beyond the first is a recovery."""
        self._sessions += 1
        if self._sessions > 1:
            self._metrics.recoveries.inc()

    def before_run(self, run_context: Any) -> Any:
        """Asks for the figures of the step."""
        self._started = time.perf_counter()
        spec = self.built.spec
        fetches = {
            "loss": spec.loss,
            "step": self.built.step_after,
            "examples": self.built.step_examples,
            "metrics": dict(spec.metrics),
        }
        return v1.train.SessionRunArgs(fetches)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Takes the figures of the step.

        Raises:
            JobFailed: The loss is not a number, and the model's loop does not tolerate that.
        """
        results = run_values.results
        loss, examples = float(results["loss"]), int(results["examples"])
        self.global_step = int(results["step"])
        self._metrics.show_step(time.perf_counter() - self._started, examples, loss)
        with self._lock:
            self._report = pb.WorkerReport(
                global_step=self.global_step,
                local_steps=self._report.local_steps + 1,
                examples=self._report.examples + examples,
                loss=loss,
                metrics={name: float(value) for name, value in results["metrics"].items()},
                recoveries=max(0, self._sessions - 1),
            )
        if math.isnan(loss) and not self.built.loop.tolerates_nan:
            raise JobFailed(
                f"the loss is NaN at global step {self.global_step}; a smaller learning rate or "
                "clipped gradients (TrainSpec.transform_gradients) may help"
            )

    def report(self) -> pb.WorkerReport:
        """Returns the figures so far; called from the heartbeat's thread."""
        with self._lock:
            report = pb.WorkerReport()
            report.CopyFrom(self._report)
        return self._activity.add_to(report)


class StopHook(tf.compat.v1.train.SessionRunHook):
    """Hook that ends training at the last global step, or when this worker has to stop.

    It looks before the first step as well, so a job that is done makes no further step.

    Args:
        built: The worker's graph.
        last_step: Global step at which training ends; None: never.
        told_to_stop: Whether the chief, or a signal, ends this worker.
    """

    def __init__(
        self, built: TrainGraph, last_step: int | None, told_to_stop: Callable[[], bool]
    ) -> None:
        self._built = built
        self._last_step = last_step
        self._told_to_stop = told_to_stop
        self.stopped = False

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Looks where the model is, before the first step."""
        step = int(session.run(self._built.global_step))
        if self._is_over(step):
            coord.request_stop()

    def before_run(self, run_context: Any) -> Any:
        """Asks for the global step after this step."""
        return v1.train.SessionRunArgs(self._built.step_after)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Stops when it is time."""
        if self._is_over(int(run_values.results)):
            run_context.request_stop()

    def _is_over(self, step: int) -> bool:
        if self._last_step is not None and step >= self._last_step:
            self.stopped = True
        if self._told_to_stop():
            self.stopped = True
        return self.stopped


class TokenHook(tf.compat.v1.train.SessionRunHook):
    """Sync mode: takes the worker's first token, before its first gradient.

    Args:
        built: The worker's graph.
        activity: The activity to report; None: it is not reported.
    """

    def __init__(self, built: TrainGraph, activity: Activity | None = None) -> None:
        assert built.sync is not None
        self._take_token = built.sync.take_token
        self._activity = activity or Activity()

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Waits for a token; the chief issues some when the worker has to stop."""
        self._activity.note(pb.WorkerReport.TOKEN)
        session.run(self._take_token)
        self._activity.note(pb.WorkerReport.BETWEEN)
