"""A worker's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_STEP_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class WorkerMetrics:
    """Prometheus metrics of a worker's own steps."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.step_seconds = Histogram(
            "paramserve_worker_step_seconds",
            "Seconds of one step, waiting for parameters and tokens included",
            registry=registry,
            buckets=_STEP_BUCKETS,
        )
        self.steps = Counter("paramserve_worker_steps", "Steps made", registry=registry)
        self.examples = Counter(
            "paramserve_worker_examples",
            "Examples whose gradients were computed",
            registry=registry,
        )
        self.loss = Gauge("paramserve_worker_loss", "Loss of the newest step", registry=registry)
        self.recoveries = Counter(
            "paramserve_worker_recoveries",
            "Sessions rebuilt after a lost server",
            registry=registry,
        )

    def show_step(self, seconds: float, examples: int, loss: float) -> None:
        """Takes over a step."""
        self.step_seconds.observe(seconds)
        self.steps.inc()
        self.examples.inc(examples)
        self.loss.set(loss)
