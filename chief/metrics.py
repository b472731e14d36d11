"""The chief's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..data_plane.placement import ServerLoad
from ..data_plane.sync.tokens import SyncCounters
from ..data_plane.traffic import Traffic
from .checkpoints.files import Checkpoint
from .control_figures import ControlFigures
from .progress import Snapshot
from .services.guard import Refusal
from .services.limits import LIMITS

# Buckets of histograms, in seconds.
_PAUSES = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class ChiefMetrics:
    """The chief's metrics of the job as a whole."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"paramserve_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"paramserve_{name}", text, labels, registry=registry)

        def seconds(
            name: str, text: str, buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS
        ) -> Histogram:
            return Histogram(f"paramserve_{name}", text, buckets=buckets, registry=registry)

        self.global_step = gauge("global_step", "Updates of the parameters")
        self.steps_per_second = gauge("steps_per_second", "Global steps per second, last 5 s")
        self.examples_per_second = gauge("examples_per_second", "Applied examples/s, last 5 s")
        self.loss = gauge("loss", "Newest loss, averaged over the workers")
        # Not `role`: that is the label of the process that is scraped, here always the chief's.
        self.tasks_up = gauge("tasks_up", "Tasks that hold their lease", ("task_role",))
        self.generation = gauge("generation", "Changes of the set of parameter servers, from 1")
        self.parameter_bytes = gauge("parameter_bytes", "Variables and slots, by server", ("ps",))
        self.traffic_bytes = gauge(
            "step_traffic_bytes", "Traffic of a worker in one step", ("ps", "direction")
        )
        self.restore_step = gauge("restore_step", "Global step that a loss now would go back to")
        self.records_set_aside = gauge(
            "input_records_set_aside", "Records of the input that could not be read or trained on"
        )
        self.checkpoint_step = gauge("checkpoint_step", "Global step of the newest checkpoint")
        self.checkpoint_timestamp = gauge(
            "checkpoint_timestamp_seconds", "Unix time of the newest checkpoint"
        )
        self.examples = counter("examples", "Examples applied in this run")
        self.step_age_seconds = gauge("step_age_seconds", "Since the newest global step")
        self.stalls = counter("stalls", "Times that no step was made for too long")
        self.recoveries = counter("recoveries", "Sessions rebuilt after a lost server")
        self.preemptions = counter("preemptions", "Tasks that left after a signal", ("task_role",))
        self.recovery_seconds = seconds(
            "recovery_seconds", "Seconds from the loss of a server to the next step", _PAUSES
        )
        self.refused_calls = counter(
            "refused_calls", "Calls without a token that has the right to them", ("reason",)
        )
        for reason in Refusal:
            self.refused_calls.labels(reason=reason)
        self.resize_seconds = seconds(
            "resize_seconds",
            "Seconds for which steps stood still for a move to other servers",
            _PAUSES,
        )
        self.checkpoint_seconds = seconds("checkpoint_seconds", "Seconds to write a checkpoint")
        self.checkpoint_failures = counter(
            "checkpoint_failures", "Checkpoints that were not written, or not in time"
        )
        self.gradients = counter("gradients", "Gradients in sync mode, in this run", ("outcome",))
        self.tokens_reissued = counter(
            "tokens_reissued", "Tokens issued again for workers that left or were silent"
        )
        self.loop_lag_seconds = seconds(
            "control_loop_lag_seconds",
            "Delay of the control server's event loop, four times a second",
            (0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0),
        )
        self.control_streams = gauge(
            "control_streams", "Open streams of the control server", ("kind",)
        )
        self.lease_extension = counter(
            "lease_extension_seconds",
            "Seconds by which leases were extended, as the chief took no reports",
        )
        self.refused = counter(
            "control_refused", "Calls that exceeded a limit of the control server", ("limit",)
        )
        for limit in LIMITS:
            self.refused.labels(limit=limit)
        self._extended_seen = 0.0
        self._examples_seen: int | None = None
        self._preemptions_seen: dict[str, int] = {}
        self.show_preemptions({"ps": 0, "worker": 0})

    def show_progress(self, progress: Snapshot) -> None:
        """Takes over the newest figures."""
        self.global_step.set(progress.global_step)
        self.steps_per_second.set(progress.steps_per_second)
        self.examples_per_second.set(progress.examples_per_second)
        if progress.loss is not None:
            self.loss.set(progress.loss)
        seen = progress.examples if self._examples_seen is None else self._examples_seen
        self.examples.inc(max(0, progress.examples - seen))
        self._examples_seen = progress.examples

    def count_gradients(self, more: SyncCounters) -> None:
        """Adds the counts of gradients since the last call."""
        self.gradients.labels(outcome="applied").inc(max(0, more.applied))
        self.gradients.labels(outcome="dropped").inc(max(0, more.dropped))
        self.tokens_reissued.inc(max(0, more.reissued))

    def show_tasks(self, up: Mapping[str, int], generation: int) -> None:
        """Takes over how many tasks are up."""
        for role, count in up.items():
            self.tasks_up.labels(task_role=role).set(count)
        self.generation.set(generation)

    def show_preemptions(self, preemptions: Mapping[str, int]) -> None:
        """Takes over how many tasks were preempted so far, by role."""
        for role, count in preemptions.items():
            more = count - self._preemptions_seen.get(role, 0)
            self.preemptions.labels(task_role=role).inc(more)
            self._preemptions_seen[role] = count

    def show_parameters(
        self, loads: Mapping[int, ServerLoad], traffic: Mapping[int, Traffic]
    ) -> None:
        """Takes over where the bytes are, and how many of them cross."""
        self.parameter_bytes.clear()  # There may be fewer servers now.
        self.traffic_bytes.clear()
        for index, load in loads.items():
            self.parameter_bytes.labels(ps=str(index)).set(load.bytes)
        for index, each in traffic.items():
            self.traffic_bytes.labels(ps=str(index), direction="pull").set(each.pulled_bytes)
            self.traffic_bytes.labels(ps=str(index), direction="push").set(each.pushed_bytes)

    def count_refused_call(self, reason: Refusal) -> None:
        """Counts a call that was turned away."""
        self.refused_calls.labels(reason=reason).inc()

    def show_control(self, control: ControlFigures, streams: Mapping[str, int]) -> None:
        """Takes over whether the control server keeps up, and its open streams by kind."""
        self.loop_lag_seconds.observe(control.newest_lag_secs)
        self.lease_extension.inc(max(0.0, control.extended_secs - self._extended_seen))
        self._extended_seen = max(self._extended_seen, control.extended_secs)
        for kind, count in streams.items():
            self.control_streams.labels(kind=kind).set(count)

    def count_refused(self, limit: str) -> None:
        """Counts a call that exceeded a limit."""
        self.refused.labels(limit=limit).inc()

    def show_saved(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint that was just written."""
        self.checkpoint_seconds.observe(checkpoint.seconds)
        self.show_checkpoint(checkpoint)

    def show_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Takes over which checkpoint is the newest, written or restored."""
        self.checkpoint_step.set(checkpoint.global_step)
        self.checkpoint_timestamp.set(checkpoint.written)
