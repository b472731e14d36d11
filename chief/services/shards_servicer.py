"""The shards service: translates between messages and `ShardLedger`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import grpc

from ...cluster.spec import Role, Task
from ...errors import UsageError
from ...model.input.file_index import FileIndex, FileQuery
from ...model.input.shard_plan import InputPlan
from ...protos import membership_pb2, shards_pb2 as pb
from ...protos.shards_pb2_grpc import ShardsServicer as Base
from ..input.file_counts import FileCounts
from ..input.ledger import Finished, Grant, ShardLedger
from ..membership.membership import Membership
from .status_codes import with_status_codes
from .wakeups import Wakeups

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

# A worker that waits for longer is answered after so long, and asks again.
MAX_WAIT_SECS = 1.0


class ShardsServicer(Base):
    """Serves the shards of a job's dataset.

    Args:
        ledger: Deals the shards.
        membership: The tasks of the job; a request counts as a heartbeat.
        files: Counts the input's files.
    """

    def __init__(self, ledger: ShardLedger, membership: Membership, files: FileCounts) -> None:
        self._ledger = ledger
        self._membership = membership
        self._files = files
        self._dealt = Wakeups(ledger.changed)
        self._counted = Wakeups(files.changed)

    @with_status_codes
    async def Lease(self, request: pb.LeaseRequest, context: Context) -> pb.LeaseResponse:
        """Gives a worker a shard."""
        task = self._take_in(request)
        held = [_grant(each) for each in request.held]
        grant = await self._dealt.wait_for(
            lambda: self._deal(task, request.incarnation, held),
            min(request.wait_secs, MAX_WAIT_SECS),
        )
        return grant if grant is not None else pb.LeaseResponse(wait=True)

    @with_status_codes
    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportResponse:
        """Takes back a worker's finished shards."""
        task = self._take_in(request)
        held = [_grant(each) for each in request.held]
        void = self._ledger.find_void(task, request.incarnation, held)
        return pb.ReportResponse(void_leases=void)

    @with_status_codes
    async def FindFiles(
        self, request: pb.FindFilesRequest, context: Context
    ) -> pb.FindFilesResponse:
        """Gives a worker the index of the input's files."""
        task = self._membership.heartbeat(_task(request.task), request.incarnation, None)
        query = FileQuery.from_json(request.query)
        if request.index:
            index = await asyncio.to_thread(FileIndex.from_bytes, request.index)
            self._files.take(query, index)
        answer = await self._counted.wait_for(
            lambda: self._files.answer(query, task, request.incarnation) or None,
            min(request.wait_secs, MAX_WAIT_SECS),
        )
        if isinstance(answer, FileIndex):
            return pb.FindFilesResponse(index=await asyncio.to_thread(answer.to_bytes))
        return pb.FindFilesResponse(count=bool(answer), wait=not answer)

    def _deal(self, task: Task, incarnation: str, held: Sequence[Grant]) -> pb.LeaseResponse | None:
        """Answers a request for a shard; None: there is none now."""
        grant = self._ledger.lease(task, incarnation, held=held)
        if grant is None:
            return pb.LeaseResponse(end=True) if self._ledger.is_exhausted else None
        shard = pb.HeldShard(lease=grant.lease, shard=grant.shard, epoch=grant.epoch)
        lease = pb.ShardLease(held=shard, batches=grant.batches, fills=grant.fills)
        return pb.LeaseResponse(lease=lease)

    def _take_in(self, request: pb.LeaseRequest | pb.ReportRequest) -> Task:
        """Handles the common part of both kinds of request."""
        task = self._membership.heartbeat(_task(request.task), request.incarnation, None)
        _check_dataset(request.dataset, self._ledger.plan)
        self._ledger.finish(task, request.incarnation, _finished(request.finished))
        return task


def _check_dataset(theirs: pb.Dataset, plan: InputPlan) -> None:
    """Raises UsageError with the difference if a worker reads another dataset."""
    ours = plan.to_proto()
    if ours == theirs:
        return
    names = [field.name for field in pb.Dataset.DESCRIPTOR.fields if field.name != "digest"]
    differing = [
        f"{name}={getattr(theirs, name)!r} instead of {getattr(ours, name)!r}"
        for name in names
        if getattr(theirs, name) != getattr(ours, name)
    ]
    what = ", ".join(differing) or "another shard_records, or other files"
    raise UsageError(
        f"this task reads dataset {theirs.name!r} with {what}: all tasks of a job have to give the "
        "same arguments to task.shards() or task.file_shards()"
    )


def _task(task: membership_pb2.TaskId) -> Task:
    return Task(Role.parse(task.role), task.index)


def _grant(held: pb.HeldShard) -> Grant:
    return Grant(held.lease, held.shard, held.epoch)


def _finished(messages: Iterable[pb.FinishedShard]) -> list[Finished]:
    return [
        Finished(_grant(each.held), each.missed, each.error, each.broken_off) for each in messages
    ]
