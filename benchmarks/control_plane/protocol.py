"""`SimulatedTask`: one task's side of the chief's services, without anything to train."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import grpc

from ...cluster.access import CHANNEL_OPTIONS
from ...cluster.chief_client import POLL_SECS, new_incarnation
from ...cluster.token import TOKEN_VARIABLE
from ...protos import membership_pb2 as pb
from ...protos.membership_pb2_grpc import MembershipStub

_PAUSE_SECS = 0.2
_RETRY_SECS = 0.5
# Each task has its own connection, as each of a job's processes has.
_OPTIONS = (*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))


@dataclass
class Observations:
    """The observations of the simulated tasks of one process.

    Attributes:
        answer_secs: Seconds from each heartbeat to its answer.
        unanswered: Heartbeats without an answer in time.
        lost: Tasks that the chief declared lost.
        over: By generation, when each task heard that it is over.
        ready: By generation, when each worker had its view.
    """

    answer_secs: list[float] = field(default_factory=list)
    unanswered: int = 0
    lost: int = 0
    over: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    ready: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))


class SimulatedTask:
    """One task with a connection of its own.

    Args:
        chief: The address of the chief.
        role: "ps", which comes as a spare, or "worker".
        number: Counts the tasks of a role.
        seen: Receives what this task sees.
    """

    def __init__(self, chief: str, role: str, number: int, seen: Observations) -> None:
        self._channel = grpc.aio.insecure_channel(chief, options=_OPTIONS)
        self._stub: Any = MembershipStub(self._channel)
        self._metadata = (("authorization", f"Bearer {os.environ[TOKEN_VARIABLE]}"),)
        self._role = role
        self._number = number
        self._seen = seen
        self._incarnation = new_incarnation()
        self._task = pb.TaskId()
        self._job = pb.JobConfig()
        self._steps = 0
        self._is_lost = False
        self._sent_at: float | None = None
        self._over = self._answered_hold = 0
        self._writing = asyncio.Lock()
        self._streams: list[asyncio.Task[None]] = []

    async def register(self, max_wait_secs: float) -> bool:
        """Joins the job; returns False if that took too long."""
        request = pb.RegisterRequest(
            role=self._role,
            address=f"{self._role}-{self._number}.simulated:2222",
            incarnation=self._incarnation,
            metrics_address=f"{self._role}-{self._number}.simulated:9100",
            pid=self._number,
            spare=self._role == "ps",
        )
        deadline = time.monotonic() + max_wait_secs
        while (left := deadline - time.monotonic()) > 0:
            try:
                reply = await self._stub.Register(
                    request,
                    timeout=min(POLL_SECS, left),
                    wait_for_ready=True,
                    metadata=self._metadata,
                )
            except grpc.RpcError:
                await asyncio.sleep(min(_RETRY_SECS, left))
                continue
            self._task, self._job = reply.task, reply.job
            return True
        return False

    async def stay(self) -> None:
        """Stays in the job as a process does, until it is cancelled or lost."""
        streams = [self._attend()]
        if self._role == "worker":
            streams += [self._await_ready(1)]
        self._streams = [asyncio.create_task(each) for each in streams]
        await asyncio.gather(*self._streams)

    async def _attend(self) -> None:
        interval = self._job.heartbeat_secs
        await asyncio.sleep(interval * random.random())
        while not self._is_lost:
            call = self._stub.Attend(metadata=self._metadata)
            reports = asyncio.create_task(self._send_reports(call, interval))
            try:
                async for news in call:
                    await self._note_news(call, news)
            except grpc.aio.AioRpcError as error:
                self._note_failure(error)
            finally:
                reports.cancel()
                call.cancel()
            await asyncio.sleep(_PAUSE_SECS * random.random())

    async def _send_reports(self, call: Any, interval: float) -> None:
        while True:
            if self._sent_at is not None:
                self._seen.unanswered += 1
            began = self._sent_at = time.monotonic()
            await self._send_report(call)
            await asyncio.sleep(max(0.0, began + interval - time.monotonic()))

    async def _send_report(self, call: Any, answered_hold: int = 0) -> None:
        report = pb.TaskReport(
            task=self._task,
            incarnation=self._incarnation,
            report=self._report(),
            hears_holds=self._role == "worker",
            answered_hold=answered_hold,
        )
        async with self._writing:
            await call.write(report)

    async def _note_news(self, call: Any, news: pb.TaskNews) -> None:
        if self._sent_at is not None:
            self._seen.answer_secs.append(time.monotonic() - self._sent_at)
            self._sent_at = None
        self._task = news.task
        if news.over > self._over:
            self._over = news.over
            if self._role == "worker":
                self._note_over(news.over)
        if news.hold.held and news.hold.number != self._answered_hold:
            self._answered_hold = news.hold.number
            await self._send_report(call, news.hold.number)

    def _note_failure(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() is grpc.StatusCode.NOT_FOUND and not self._is_lost:
            self._is_lost = True
            self._seen.lost += 1

    def _report(self) -> pb.WorkerReport | None:
        if self._role != "worker":
            return None
        self._steps += 100
        return pb.WorkerReport(
            global_step=self._steps,
            local_steps=self._steps,
            examples=64 * self._steps,
            loss=1.0 / self._steps,
            metrics={"accuracy": 0.5},
            doing=pb.WorkerReport.STEP,
            sessions=1,
        )

    def _note_over(self, generation: int) -> None:
        self._seen.over[generation].append(time.monotonic())
        self._streams.append(asyncio.create_task(self._await_ready(generation + 1, generation)))

    async def _await_ready(self, generation: int, lost_generation: int = 0) -> None:
        """Asks for the servers, then for the model, as a worker does."""
        for before_ready in (True, False):
            request = pb.AwaitReadyRequest(
                task=self._task,
                min_generation=generation,
                timeout_secs=POLL_SECS,
                lost_generation=lost_generation if before_ready else 0,
                before_ready=before_ready,
            )
            view = await self._ask_until_ready(request)
        self._seen.ready[view.generation].append(time.monotonic())

    async def _ask_until_ready(self, request: pb.AwaitReadyRequest) -> pb.View:
        while True:
            try:
                reply = await self._stub.AwaitReady(
                    request,
                    timeout=POLL_SECS + 0.5,
                    wait_for_ready=True,
                    metadata=self._metadata,
                )
            except grpc.RpcError:
                await asyncio.sleep(_PAUSE_SECS)
                continue
            if reply.ready:
                return reply.view
