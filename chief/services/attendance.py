"""`Attendance`: the streams on which tasks report and receive their news."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeAlias

import grpc

from ...cluster.spec import Role, Task
from ...errors import JobFailed
from ...protos import membership_pb2 as pb
from ..membership.tasks import TaskState
from ..state import JobState
from .limits import MAX_TASKS, Limits
from .wakeups import Relay

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# A stream is closed if its task does not identify itself within so many seconds.
FIRST_REPORT_SECS = 10.0
ENDED = "this stream was ended: the task has opened another, or the chief leaves"
# So many streams receive news before other calls have their turn.
_AT_ONCE = 100
_SETTLE_SECS = 1.0


class _Stream:
    """The stream of one task; used in the event loop only.

    Attributes:
        task: The last name of the task.
        hears_holds: True if it answers holds.
        answered_hold: The newest hold that it has answered.
        is_ended: True if the chief has ended it.
    """

    def __init__(self, task: Task, incarnation: str, context: Context) -> None:
        self.task = task
        self.incarnation = incarnation
        self.hears_holds = False
        self.answered_hold = 0
        self._context = context
        self._handler = asyncio.current_task()
        self.is_ended = False
        self._is_due = self._is_writing = False

    @property
    def key(self) -> tuple[Role, str]:
        """The key of the stream: a process with two roles in the job has a stream for each."""
        return self.task.role, self.incarnation

    def end(self) -> None:
        """Ends it from outside, once."""
        if not self.is_ended:
            self.is_ended = True
            self._cancel()

    async def tell(self, attendance: Attendance) -> None:
        """Sends the present news after those under way; a call meanwhile adds nothing."""
        self._is_due = True
        if self._is_writing:
            return
        self._is_writing = True
        try:
            while self._is_due:
                self._is_due = False
                await self._context.write(attendance.news(self))
        finally:
            self._is_writing = False
            if self.is_ended:
                self._cancel()

    async def settle(self) -> None:
        """Waits a while for news under way: gRPC takes no status during a write."""
        deadline = time.monotonic() + _SETTLE_SECS
        while self._is_writing and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def _cancel(self) -> None:
        """Ends the wait for a report; during a write, once that is over."""
        is_own = self._handler is asyncio.current_task()
        if self._handler is not None and not self._is_writing and not is_own:
            self._handler.cancel()


class Attendance:
    """The streams of a job's tasks, which take reports and pass on news as they come.

    To be used in one event loop. A report costs the same however many tasks there are.

    Args:
        state: The job.
        limits: Of streams and reports.
    """

    def __init__(self, state: JobState, limits: Limits) -> None:
        self._state = state
        self._limits = limits
        self._membership = state.membership
        self._streams: dict[tuple[Role, str], _Stream] = {}
        self._common: object = None
        self._relay = Relay(self._look, state.membership.changed, state.holds.changed)
        self._broadcast: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()  # The loop itself keeps no task.

    def __len__(self) -> int:
        return len(self._streams)

    async def attend(self, reports: AsyncIterator[pb.TaskReport], context: Context) -> None:
        """Serves one stream until its task ends it.

        Raises:
            UnknownTask: It is lost.
            JobFailed: The chief has ended the stream.
            ValueError: It does not identify itself.
            TooMuch: There are too many streams already, or a report is too large.
        """
        self._relay.attach()
        with self._limits.stream("tasks", context.peer(), MAX_TASKS):
            await self._attend(reports, context)

    async def _attend(self, reports: AsyncIterator[pb.TaskReport], context: Context) -> None:
        incoming = aiter(reports)
        try:
            async with asyncio.timeout(FIRST_REPORT_SECS):
                first = await anext(incoming)
        except (StopAsyncIteration, TimeoutError):
            raise ValueError(
                f"a stream without a report within {FIRST_REPORT_SECS:g} s: send a TaskReport first"
            ) from None
        stream = _Stream(_task(first.task), first.incarnation, context)
        self._take(stream, first)
        if (former := self._streams.pop(stream.key, None)) is not None:
            former.end()  # The task has abandoned it, which this side has not noticed yet.
        self._streams[stream.key] = stream
        try:
            await stream.tell(self)
            while not stream.is_ended:
                if (report := await anext(incoming, None)) is None:
                    return
                self._take(stream, report)
                await stream.tell(self)
        except asyncio.CancelledError:
            if not stream.is_ended:
                raise
        finally:
            self._close(stream)
            await stream.settle()
        self._raise_if_lost(stream)
        raise JobFailed(ENDED)

    def end_all(self) -> None:
        """Ends all streams."""
        for stream in list(self._streams.values()):
            stream.end()

    def news(self, stream: _Stream) -> pb.TaskNews:
        """Returns all present news for a task."""
        membership, task = self._membership, stream.task
        record = membership.find_life(task, stream.incarnation)
        may_go = record is not None and record.state is TaskState.PREEMPTED
        if record is not None:
            task = stream.task = record.task
        news = pb.TaskNews(
            generation=membership.generation,
            over=membership.over,
            stop=membership.is_stopping(task),
            write_summaries=task.role is Role.WORKER and membership.is_first_up(task),
            task=pb.TaskId(role=task.role, index=task.index),
            leave_session=record.leave_session if record is not None else 0,
            may_go=may_go,
        )
        num_ps, layout = self._state.plan.next or (0, 0)
        if layout > membership.layout:
            news.next_num_ps, news.next_layout = num_ps, layout
        if stream.hears_holds:
            news.hold.number, news.hold.held = self._state.holds.now
        return news

    def _take(self, stream: _Stream, report: pb.TaskReport) -> None:
        """Records a task's report."""
        self._limits.check_size(report.ByteSize())
        newest = report.report if report.HasField("report") else None
        stream.task = self._membership.heartbeat(stream.task, stream.incarnation, newest)
        holds = self._state.holds
        if report.hears_holds and not stream.hears_holds:
            stream.hears_holds = True
            holds.begin_watching(stream.task, stream.incarnation)
        if report.answered_hold != stream.answered_hold:
            stream.answered_hold = report.answered_hold
            holds.answer(stream.task, stream.incarnation, report.answered_hold)

    def _raise_if_lost(self, stream: _Stream) -> None:
        record = self._membership.find_life(stream.task, stream.incarnation)
        if record is None or not record.is_alive:
            self._membership.heartbeat(stream.task, stream.incarnation, None)

    def _close(self, stream: _Stream) -> None:
        if self._streams.get(stream.key) is stream:
            del self._streams[stream.key]
        if stream.hears_holds:
            self._state.holds.end_watching(stream.task, stream.incarnation)

    def _look(self) -> None:
        """Sends common news to all tasks, and other news to the tasks concerned."""
        plan = self._state.plan
        common = (self._membership.common_news, self._state.holds.now, plan.next)
        touched = self._streams_of(self._membership.take_touched())
        for stream in touched:
            record = self._membership.find_life(stream.task, stream.incarnation)
            if record is None or record.state is TaskState.LOST:
                stream.end()
        if common != self._common:
            self._common = common
            if self._broadcast is None or self._broadcast.done():
                self._broadcast = asyncio.create_task(self._tell_all())
            return
        for stream in touched:
            self._tell(stream)

    def _streams_of(self, incarnations: Iterable[str]) -> list[_Stream]:
        keys = ((role, each) for each in incarnations for role in (Role.PS, Role.WORKER))
        return [self._streams[key] for key in keys if key in self._streams]

    async def _tell_all(self) -> None:
        told: object = None
        while told != self._common:
            told = self._common
            for number, stream in enumerate(list(self._streams.values())):
                self._tell(stream)
                if number % _AT_ONCE == _AT_ONCE - 1:
                    await asyncio.sleep(0)

    def _tell(self, stream: _Stream) -> None:
        async def tell() -> None:
            # A stream that has just broken has a successor soon, or none.
            with contextlib.suppress(Exception):
                await stream.tell(self)

        task = asyncio.create_task(tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


def _task(task: pb.TaskId) -> Task:
    return Task(Role.parse(task.role), task.index)
