"""The chief process, from its first file to its last."""

from __future__ import annotations

import functools
import gc
import logging
import sys
import threading
from collections.abc import Callable, Mapping

import tensorflow as tf

from ..cluster.address import join_address
from ..cluster.logdir.interface import LogDirectory, open_logdir
from ..cluster.metrics import MetricsServer, make_registry
from ..cluster.runtime import TensorFlowServer, start_server
from ..cluster.status_client import refuse_live_job
from ..jobs.options import JobOptions, JobResult
from ..jobs.role_options import ChiefOptions
from ..loops.loop import LoopContext
from ..model.graph import TrainGraph
from ..model.input.source import WholeInput
from ..model.references import load_build
from ..model.spec import BuildFn, TaskContext
from ..protos import membership_pb2 as pb
from ..reasons import as_failure, reason_of
from .checkpoints.files import find_checkpoints, local_path
from .draining import HandedOver
from .ending import dismiss_all
from .evaluation import evaluate
from .generations import Generations
from .input.file_counts import FileCounts
from .job_files import JobFiles, adopt, to_json
from .membership.membership import Membership
from .membership.pause_detector import PauseDetector
from .metrics import ChiefMetrics
from .outcomes import EndReason, Handover
from .paced_call import PacedCall
from .resize.relocation import Layout, build_layout
from .services.guard import Guard
from .services.limits import Limits, raise_descriptor_limit
from .services.membership_servicer import MembershipServicer
from .services.server import ControlServer, Interceptor
from .services.shards_servicer import ShardsServicer
from .services.status_servicer import StatusServicer
from .state import JobContext, JobState, Phase, Tenure
from .summaries import SummaryService

log = logging.getLogger(__name__)

# After so long a busy thread makes way: the event loop of the control server answers thousands of
# tasks, and Python's own 5 ms would be added to each of its turns.
SWITCH_SECS = 0.0005


# Runs a worker in this process, given the chief's address, until the event is set.
Train = Callable[[str, threading.Event], None]


def run_chief(config: ChiefOptions, stop: threading.Event, train: Train | None = None) -> JobResult:
    """Runs a job to its end: load, start up, train, shut down.

    Args:
        config: The configuration.
        stop: Set from outside to end the job with a checkpoint; or, if this chief is supervised, to
            leave the job to the next chief, after a checkpoint.
        train: For `chief_trains`: runs the worker of this process.

    Raises:
        ParamserveError: The job failed; every task has been told to end.
        HandedOver: The job continues under another chief.
    """
    storage = open_logdir(config.job.logdir)
    files = JobFiles(storage)
    files.prepare()
    refuse_live_job(config.job.logdir, config.access)
    build = load_build(config.job.model)
    chief = _Chief(config, build, storage, files, stop, train)
    chief.start()
    try:
        result = chief.run()
        chief.end(Phase.DONE)
        return result
    except HandedOver:
        chief.is_followed = True
        raise
    except Exception as error:
        failure = as_failure("the chief failed", error)
        files.write_failure(chief.result("failed", error=str(failure)))
        chief.end(Phase.FAILED, str(failure))
        raise failure from error
    finally:
        chief.shut_down()


class _Chief:
    """The parts of a chief, and their order."""

    def __init__(
        self,
        config: ChiefOptions,
        build: BuildFn,
        storage: LogDirectory,
        files: JobFiles,
        stop: threading.Event,
        train: Train | None,
    ) -> None:
        options = config.job
        self._config = config
        self._build = build
        self._storage = storage
        self._files = files
        self._stop = stop
        self._train = train
        self._pause_detector = PauseDetector()
        self._membership = Membership(
            num_ps=options.num_ps,
            lease_secs=options.lease_secs,
            ps_on_workers=options.ps_on_workers,
            stood_still_secs=self._pause_detector.total_secs,
        )
        self._state = JobState(options, config.job_id, self._membership)
        self._registry = make_registry()
        self._metrics = ChiefMetrics(self._registry)
        self._lists_lock = threading.Lock()
        self._lists = PacedCall(self._write_lists)
        plan = self._state.plan
        self._is_attached = adopt(files.read_members(), config.job_id, self._membership, plan)
        self._start_step = next((step for step, _ in find_checkpoints(storage)), 0)
        self._file_counts = FileCounts(
            *(storage, self._membership),
            is_resumed=self._start_step > 0,
            max_wait_secs=options.max_wait_secs,
            say=self._say,
            is_interrupted=self._is_interrupted,
        )
        self.is_followed = False

    def start(self) -> None:
        config = self._config
        raise_descriptor_limit()
        sys.setswitchinterval(SWITCH_SECS)
        limits = Limits(self._metrics.count_refused)
        servicer = MembershipServicer(
            self._state,
            job_config(config.job, config.job_id, self._start_step),
            self._lists.make,
            limits,
        )
        self._control = ControlServer(
            servicer,
            StatusServicer(self._state, self._lists.make, limits),
            config.port,
            ShardsServicer(self._state.ledger, self._membership, self._file_counts),
            config.host,
            tls=config.access.tls,
            interceptors=self._interceptors(),
            on_beat=functools.partial(self._note_beat, limits),
        )
        self._server: TensorFlowServer = start_server(
            config.host, config.tensorflow_port, "--tensorflow-port"
        )
        self._metrics_server = MetricsServer(
            self._registry, config.host, config.metrics_port, config.access
        )
        self._control.start()
        self._address = join_address(config.host, self._control.port)
        self._files.announce(config.job_id, self._address, self._metrics_server.address)
        self._write_lists()
        self._lists.start()
        gc.freeze()  # What is loaded stays; looking through it again and again delays answers.
        log.info("chief of job %s serves on %s", config.job_id, self._address)

    def _interceptors(self) -> list[Interceptor]:
        token = self._config.access.token
        return [Guard(token, self._metrics.count_refused_call)] if token else []

    def run(self) -> JobResult:
        layout = self._build_layout(self._membership.num_ps, self._membership.layout)
        options, built = self._config.job, layout.built
        self._state.last_step = _first_limit(options.max_steps, built.loop.last_step)
        summaries = SummaryService(self._storage, built.graph, options.save_summaries_steps)
        self._state.write_summary = summaries.write_model_summary
        if self._train is not None:
            threading.Thread(
                target=self._train,
                args=(self._address, self._stop),
                name="own-worker",
                daemon=True,
            ).start()
        try:
            generations = Generations(
                self._context(summaries),
                layout,
                self._build_layout,
                self._server,
                self._write_lists,
            )
            end = generations.train(is_attached=self._is_attached)
            if isinstance(end, Handover):
                raise HandedOver
            # The servers stay: if this process is lost now, the next one takes them over as after
            # any loss, finds that training is over, and evaluates.
            metrics = self._evaluate(built, end.reason, summaries)
        finally:
            summaries.close()
        result = self.result(end.reason, metrics)
        self._files.write_result(result)
        return result

    def end(self, phase: Phase, detail: str = "") -> None:
        """Tells all tasks that the job is over, and releases them."""
        self._state.detail = detail
        self._state.enter(phase)
        options = self._config.job
        dismiss_all(self._membership, options.heartbeat_secs, options.lease_secs)

    def shut_down(self) -> None:
        self._control.stop()
        self._lists.stop()
        if not self.is_followed:  # Otherwise the next chief reads the members there.
            self._files.withdraw()
        self._metrics_server.stop()
        self._storage.close()

    def _context(self, summaries: SummaryService) -> JobContext:
        tenure = Tenure(
            self._config.supervised,
            self._config.grace_secs,
            self._is_interrupted,
            self._is_handing_over,
        )
        return JobContext(self._state, tenure, self._storage, summaries, self._metrics)

    def _build_layout(self, num_ps: int, number: int) -> Layout:
        task = LoopContext(logdir=self._storage.directory, start_step=self._start_step)
        source = WholeInput(self._file_counts.find)
        return build_layout(self._build, self._config.job, num_ps, number, task, source)

    def _say(self, text: str) -> None:
        """Shows the activity of this process before the job begins."""
        self._state.detail = text

    def _note_beat(self, limits: Limits, lag_secs: float) -> None:
        """Notes that the control server takes reports, and how late it is; called in its loop."""
        self._pause_detector.beat()
        control = self._state.control
        control.note(lag_secs, self._pause_detector.total_secs())
        self._metrics.show_control(control, limits.open)

    def _is_interrupted(self) -> bool:
        return self._stop.is_set() or self._state.is_ending

    def _is_handing_over(self) -> bool:
        return self._config.supervised and self._stop.is_set() and not self._state.is_ending

    def _evaluate(
        self, built: TrainGraph, reason: EndReason, summaries: SummaryService
    ) -> dict[str, float]:
        checkpoint, options = self._state.checkpoint, self._config.job
        wanted = options.evaluate and reason is not EndReason.STOPPED
        if checkpoint is None or not wanted:
            return {}
        self._state.enter(Phase.EVALUATING)
        source = WholeInput(self._file_counts.find_here)
        evaluator = TaskContext("evaluator", 0, 1, 0, options.sync, options.params, source)
        path = local_path(self._storage, checkpoint.global_step)
        metrics = evaluate(built.spec, path, evaluator, built.job_saver, self._note_evaluated)
        self._state.detail = ""
        summaries.write_evaluation(metrics, checkpoint.global_step)
        return metrics

    def _note_evaluated(self, batches: int) -> None:
        """Reports the progress of the evaluation, which lasts forever on endless input."""
        self._state.detail = f"{batches:,} batches evaluated, until the input ends"

    def result(
        self, reason: str, metrics: Mapping[str, float] | None = None, error: str = ""
    ) -> JobResult:
        """Makes the result of the job, with its figures so far."""
        options, progress = self._config.job, self._state.progress
        seconds, steps = progress.trained()
        return JobResult(
            global_step=progress.snapshot.global_step,
            loss=progress.snapshot.loss,
            examples=progress.snapshot.examples,
            seconds=round(seconds, 3),
            steps_per_second=round(steps / seconds, 3) if seconds else 0.0,
            eval=metrics or {},
            checkpoint=self._state.checkpoint.path if self._state.checkpoint else "",
            workers=options.trainers,
            ps=self._membership.num_ps,
            sync=options.sync,
            reason=str(reason),
            logdir=options.logdir,
            bad_records=self._state.ledger.failures.records,
            set_aside=self._state.newest_set_aside(),
            error=error,
            job_id=self._config.job_id,
        )

    def _write_lists(self) -> None:
        try:
            with self._lists_lock:
                job_id = self._config.job_id
                self._files.write_members(to_json(job_id, self._membership, self._state.plan))
                self._files.write_targets(
                    job_id,
                    self._metrics_server.address,
                    self._membership,
                    over_tls=self._config.access.tls is not None,
                )
        except (tf.errors.OpError, OSError) as error:
            # A full disk should not keep a task from joining.
            log.warning(
                "the lists of tasks and metrics targets were not written: %s", reason_of(error)
            )


def _first_limit(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def job_config(options: JobOptions, job_id: str, start_step: int = 0) -> pb.JobConfig:
    """Returns the settings that every task of the job has to agree on.

    An option has its own name there.
    """
    named = pb.JobConfig.DESCRIPTOR.fields_by_name
    values = dict(
        {name: value for name, value in vars(options).items() if name in named},
        job_id=job_id,
        num_workers=options.trainers,
        replicas_to_aggregate=options.aggregate,
        start_step=start_step,
        data_plane=options.data_plane.to_proto(),
    )
    return pb.JobConfig(**values)
