"""The state of a job as a message of the status service."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from ...cluster.spec import Role
from ...protos import status_pb2 as pb
from ..input.ledger import NoDataset
from ..membership.tasks import TaskRecord, TaskState
from ..state import JobState, Phase

# Tasks that a status names; of a larger job, so many of each kind that needs a look.
MOST_TASKS = 100
MOST_OF_A_KIND = 20
PAGE_TASKS = 1_000
_WAITS_FOR_SERVERS = (Phase.WAITING, Phase.RECOVERING, Phase.SCALING)


def job_status(state: JobState) -> pb.JobStatus:
    """Returns the state as the status service gives it out."""
    progress, interruptions = state.progress.snapshot, state.interruptions
    status = pb.JobStatus(
        phase=state.phase,
        detail=_detail(state),
        generation=state.membership.generation,
        global_step=progress.global_step,
        max_steps=state.last_step or state.options.max_steps or 0,
        steps_per_second=progress.steps_per_second,
        examples_per_second=progress.examples_per_second,
        examples=progress.examples,
        recoveries=interruptions.recoveries,
        recovery_secs=interruptions.recovery_secs,
        recovered_step=interruptions.recovered_step,
        restore_step=state.restore_step(),
        loss=progress.loss,
        metrics=progress.metrics,
        sync=state.options.sync,
        logdir=state.options.logdir,
        job_id=state.job_id,
        uptime_secs=time.monotonic() - state.started,
        gradients_applied=state.gradients.applied,
        gradients_dropped=state.gradients.dropped,
        tokens_reissued=state.gradients.reissued,
        wanted_workers=state.plan.workers,
        wanted_ps=state.plan.ps,
        num_ps=state.membership.num_ps,
        resizes=interruptions.resizes,
        resize_secs=interruptions.resize_secs,
        preemptions=state.membership.preemptions,
        control_lag_secs=state.control.lag_secs,
        lease_extension_secs=state.control.extended_secs,
        stalls=state.stalls.count,
        secs_since_step=state.stalls.secs_since_step,
        bad_records=state.ledger.failures.records,
        set_aside=[pb.SetAside(**each) for each in state.newest_set_aside()],
    )
    _add_tasks(state, status)
    if state.checkpoint is not None:
        status.checkpoint = state.checkpoint.path
        status.checkpoint_step = state.checkpoint.global_step
        status.checkpoint_time = state.checkpoint.written
    return status


def list_tasks(state: JobState, offset: int, limit: int) -> pb.TaskList:
    """Returns a page of the tasks of a job, by role and index."""
    records = state.membership.records()
    page = records[max(0, offset) :][: limit if 0 < limit <= PAGE_TASKS else PAGE_TASKS]
    return pb.TaskList(tasks=[_task(state, each) for each in page], num_tasks=len(records))


def _add_tasks(state: JobState, status: pb.JobStatus) -> None:
    records = state.membership.records()
    totals = Counter((str(record.task.role), str(record.state)) for record in records)
    for (role, task_state), count in sorted(totals.items()):
        status.totals.add(role=role, state=task_state, count=count)
    status.num_tasks = len(records)
    chosen = records if len(records) <= MOST_TASKS else _choose(records)
    status.tasks.extend(_task(state, record) for record in chosen)


def _choose(records: Sequence[TaskRecord]) -> list[TaskRecord]:
    """Chooses the tasks that people should look at, by role and index."""
    up = [record for record in records if record.is_alive]
    workers = [record for record in up if record.task.role is Role.WORKER]
    kinds = (
        heapq.nlargest(MOST_OF_A_KIND, _gone(records), key=lambda record: record.heard),
        heapq.nsmallest(MOST_OF_A_KIND, up, key=lambda record: record.heard),
        heapq.nsmallest(MOST_OF_A_KIND, workers, key=lambda record: record.report.local_steps),
    )
    chosen = {record.task: record for kind in kinds for record in kind}
    return [chosen[task] for task in sorted(chosen)]


def _gone(records: Iterable[TaskRecord]) -> Iterator[TaskRecord]:
    return (each for each in records if each.state in (TaskState.LOST, TaskState.FAILED))


def _detail(state: JobState) -> str:
    if state.detail:
        return state.detail
    if state.phase in _WAITS_FOR_SERVERS:
        return state.membership.missing()
    return (
        state.stalls.diagnosis
        or state.control.describe()
        or state.checkpoint_trouble
        or _describe_input(state)
    )


def _describe_input(state: JobState) -> str:
    """Describes the progress of an input that is read in shards."""
    try:
        return state.ledger.progress.describe()
    except NoDataset:
        return ""


def _task(state: JobState, record: TaskRecord) -> pb.TaskStatus:
    task, report = record.task, record.report
    age = state.membership.heartbeat_age(record) if record.state is TaskState.UP else 0.0
    status = pb.TaskStatus(
        role=task.role,
        index=task.index,
        state=record.state,
        address=record.address,
        metrics_address=record.metrics_address,
        pid=record.pid,
        heartbeat_age_secs=age,
        leaves_in_secs=state.notices.remaining_secs(record),
        local_steps=report.local_steps,
        examples=report.examples,
        loss=report.loss if report.HasField("loss") else None,
        recoveries=report.recoveries,
        error=record.error,
        incarnation=record.incarnation,
    )
    if task.role is Role.PS:
        _add_load(state, status)
    return status


def _add_load(state: JobState, status: pb.TaskStatus) -> None:
    load, traffic = state.loads.get(status.index), state.traffic.get(status.index)
    if load is not None:
        status.parameter_bytes = load.bytes
        status.variables = load.variables
        status.largest_variable = load.largest
        status.largest_variable_bytes = load.largest_bytes
    if traffic is not None:
        status.pulled_bytes = traffic.pulled_bytes
        status.pushed_bytes = traffic.pushed_bytes
        status.transfers = traffic.transfers
