"""The worker process, from its first file to its last."""

from __future__ import annotations

import functools
import logging
import os
import threading
from typing import Any

import tensorflow as tf

from ..cluster.applicant import Applicant
from ..cluster.chief_client import JobStopping, MembershipClient, Registration
from ..cluster.heartbeat import Heartbeat
from ..cluster.logdir.interface import is_direct
from ..cluster.metrics import MetricsServer, make_registry
from ..cluster.parameter_host import ParameterHost
from ..cluster.runtime import TensorFlowServer, start_server
from ..cluster.spec import Role
from ..data_plane.lossy.passes import transfer_hooks
from ..data_plane.options import DataPlane
from ..data_plane.placed_graph import set_home
from ..errors import ParamserveError
from ..jobs.role_options import WorkerOptions
from ..loops.hooks import SummaryHook
from ..loops.loop import STOP_GRACE_SECS, LoopContext, run_loop
from ..loops.static_sessions import ReleaseThreadsHook
from ..model.graph import GraphOptions, TrainGraph, build_train_graph
from ..model.job_options import JobDefaults
from ..model.references import load_build
from ..model.spec import BuildFn, TaskContext
from ..protos import membership_pb2 as pb
from ..reasons import as_failure
from .activity import Activity, ActivityHook
from .graphs import Graphs
from .holds import HoldHook, HoldWatch
from .hooks import ReportHook, StopHook, TokenHook
from .input import LeasedInput
from .input_hook import InputHook
from .metrics import WorkerMetrics
from .preemption import NoticeWatch
from .service_session import LayoutChanged, ServiceSessionCreator
from .shards_client import ShardsClient

log = logging.getLogger(__name__)


def run_worker(config: WorkerOptions, stop: threading.Event) -> bool:
    """Trains until the job ends, the input ends, or `stop` is set.

    Returns:
        True if it left because of `stop`, and the job continues without it.

    Raises:
        ParamserveError: The chief or the model never came, or training failed; the chief has been
            told.
    """
    build = load_build(config.model)
    access = config.access
    server = start_server(config.host, config.port)
    metrics_registry = make_registry()
    metrics_server = MetricsServer(metrics_registry, config.host, config.metrics_port, access)
    client = MembershipClient(config.chief, access)
    try:
        applicant = Applicant(
            Role.WORKER,
            address=server.address,
            incarnation=config.incarnation,
            index=config.index,
            metrics_address=metrics_server.address,
            pid=os.getpid(),
        )
        registration = client.register(applicant, max_wait_secs=config.max_wait_secs, stop=stop)
        metrics = WorkerMetrics(metrics_registry)
        worker = _Worker(build, config, client, registration, server, metrics, stop)
        worker.run()
        return worker.has_to_go
    except JobStopping:
        log.info("the job is ending")
        return stop.is_set()
    finally:
        metrics_server.stop()
        client.close()


class _Worker:
    """A registered worker."""

    def __init__(
        self,
        build: BuildFn,
        config: WorkerOptions,
        client: MembershipClient,
        registration: Registration,
        server: TensorFlowServer,
        metrics: WorkerMetrics,
        stop: threading.Event,
    ) -> None:
        self._config = config
        self._client = client
        self._registration = registration
        self._server = server
        self._stop = stop
        self._data_plane = DataPlane.from_proto(registration.job.data_plane)
        self._parameter_host: ParameterHost | None = None
        self._device = registration.task.device
        self._activity = Activity()
        self._report = ReportHook(metrics, self._activity)
        self._creator: ServiceSessionCreator | None = None
        self._graphs = Graphs(functools.partial(self._build, build))
        self._heartbeat = Heartbeat(
            client,
            report=self._report.report,
            max_silence_secs=config.max_wait_secs,
            on_news=self._handle_news,
            on_end=lambda error: self._leave_session(str(error)),
        )
        self._input = LeasedInput(
            ShardsClient(client),
            self._heartbeat,
            lease_secs=registration.job.lease_secs,
            max_wait_secs=config.max_wait_secs,
            cancelled=self._told_to_stop,
            is_left=self._is_left,
            session=lambda: self._activity.sessions,
        )
        self._holds = HoldWatch(
            self._heartbeat, lambda: False, self._told_to_stop, is_left=self._is_left
        )
        self._notice = NoticeWatch(
            stop, config.grace_secs, lambda: self._leave_session("this worker has to go")
        )

    def run(self) -> None:
        """Trains, then leaves with the reason; a failure is reported to the chief and raised.

        Parameters that this process holds stay until the chief has saved them.
        """
        self._heartbeat.start()
        self._notice.start()
        try:
            self._train_and_leave()
        finally:
            if self._parameter_host is not None:
                self._parameter_host.serve(self._stop, self._notice.remaining_secs)

    @property
    def has_to_go(self) -> bool:
        """True if this process is asked to end while the job continues."""
        return self._stop.is_set() and not self._heartbeat.stopping.is_set()

    def _train_and_leave(self) -> None:
        try:
            reason = self._train_until_told()
            self._heartbeat.check()
        except Exception as error:
            failure = self._as_failure(error)
            self._leave(pb.LeaveRequest.FAILED, str(failure))
            raise failure from error
        self._leave(reason)

    def _train_until_told(self) -> pb.LeaveRequest.Reason:
        job = self._registration.job
        num_ps, layout = job.num_ps, job.layout
        try:
            self._take_parameter_host()
            while True:
                try:
                    return self._train(self._graphs.take(num_ps, layout))
                except LayoutChanged as change:
                    log.info("%s: the graph is built again", change)
                    num_ps, layout = change.num_ps, change.layout
        except JobStopping:
            return pb.LeaveRequest.PREEMPTED if self.has_to_go else pb.LeaveRequest.DONE
        finally:
            self._notice.stop()

    def _take_parameter_host(self) -> None:
        """Becomes a parameter server too, where the planned workers are."""
        registration = self._registration
        index, job = registration.task.index, registration.job
        if not job.ps_on_workers or index >= job.num_ps:
            return
        config = self._config
        host = ParameterHost(config.chief, config.access, config.max_wait_secs)
        address, incarnation = self._server.address, registration.incarnation
        self._device = host.join(index, address, incarnation, self._stop).device
        self._parameter_host = host

    def _train(self, built: TrainGraph) -> pb.LeaveRequest.Reason:
        """Trains on one layout of the model."""
        set_home(built.graph, self._device)
        loop = built.loop
        limits = [self._registration.job.max_steps or None, loop.last_step]
        last_step = min((limit for limit in limits if limit is not None), default=None)
        stop_hook = StopHook(built, last_step, self._told_to_stop)
        self._report.built = built
        self._creator = creator = ServiceSessionCreator(
            self._client,
            built,
            self._server,
            self._config.max_wait_secs,
            self._data_plane,
            self._told_to_stop,
            self._activity,
        )
        doing = pb.WorkerReport
        may_wait = self._data_plane.max_staleness is not None
        first = doing.SLOWER if may_wait else doing.BETWEEN
        hooks = [
            ActivityHook(self._activity, first, doing.BETWEEN),
            *transfer_hooks(
                self._data_plane,
                lease_secs=self._registration.job.lease_secs,
                cancelled=self._told_to_stop,
            ),
            ActivityHook(self._activity, doing.BETWEEN),
            *(loop.chief_only_hooks if self._is_first else ()),
            *self._service_hooks(built, stop_hook),
            *built.spec.hooks,
            *loop.hooks,
            ReleaseThreadsHook(STOP_GRACE_SECS),
            ActivityHook(self._activity, doing.STEP),
        ]
        with built.graph.as_default():
            run_loop(loop, creator, hooks)
        if self.has_to_go:
            return pb.LeaveRequest.PREEMPTED
        ended = not stop_hook.stopped and not self._told_to_stop()
        return pb.LeaveRequest.END_OF_INPUT if ended else pb.LeaveRequest.DONE

    @property
    def _is_first(self) -> bool:
        return self._registration.task.index == 0

    def _is_left(self) -> bool:
        return self._creator is not None and self._creator.is_left

    def _build(self, build: BuildFn, num_ps: int, layout: int) -> TrainGraph:
        job, task = self._registration.job, self._registration.task
        params = {**job.params, **self._config.params}
        context = TaskContext(
            "worker", task.index, job.num_workers, num_ps, job.sync, params, self._input
        )
        return build_train_graph(
            build,
            context,
            worker_device=self._device,
            options=GraphOptions(
                aggregate=job.replicas_to_aggregate,
                data_plane=self._data_plane,
                defaults=JobDefaults(save_summaries_steps=job.save_summaries_steps),
            ),
            task=LoopContext(
                is_chief=self._is_first,
                logdir=job.logdir if self._is_first and is_direct(job.logdir) else None,
                start_step=job.start_step,
            ),
            layout=layout,
        )

    def _service_hooks(self, built: TrainGraph, stop_hook: StopHook) -> list[Any]:
        hooks: list[Any] = [TokenHook(built, self._activity)] if built.sync else []
        hooks += [stop_hook, self._report]
        if built.input is not None:
            hooks.append(InputHook(self._input, built.spec.position))
        elif not built.sync:
            hooks.append(HoldHook(self._holds))
        services = built.loop.services
        if built.summary_op is not None and (
            services.save_summaries_steps or services.save_summaries_secs
        ):
            timer = tf.compat.v1.train.SecondOrStepTimer(
                services.save_summaries_secs or None, services.save_summaries_steps or None
            )
            hooks.append(
                SummaryHook(
                    lambda: built.summary_op,
                    built.step_after,
                    timer,
                    self._client.write_summary,
                    lambda: self._heartbeat.latest.write_summaries,
                )
            )
        return hooks

    def _told_to_stop(self) -> bool:
        return self._stop.is_set() or self._heartbeat.stopping.is_set()

    def _handle_news(self, news: pb.TaskNews) -> None:
        """Does what the chief says."""
        if self._creator is not None:
            self._creator.notice(news.over)
        if news.next_num_ps:
            self._graphs.foresee(news.next_num_ps, news.next_layout)
        if news.leave_session and news.leave_session == self._activity.sessions:
            self._leave_session("the chief says that its step hangs")

    def _leave_session(self, reason: str) -> None:
        if self._creator is not None:
            log.warning("the session is left: %s", reason)
            self._creator.leave(reason)

    def _leave(self, reason: pb.LeaveRequest.Reason, error: str = "") -> None:
        self._input.stop()
        self._heartbeat.stop()
        self._holds.stop()
        self._client.leave(reason, error, self._report.report())
        log.info("%s left: %s", self._registration.task, pb.LeaveRequest.Reason.Name(reason))

    def _as_failure(self, error: Exception) -> ParamserveError:
        if self._input.failure is not None:
            return self._input.failure
        return as_failure("training failed", error)
