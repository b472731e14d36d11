"""A worker's input: shards leased from the chief, and the fate of their batches.

Three parties call in. The dataset asks for shards and reports the read batches; a hook reports the
batches of each step; a thread reports to the chief. A lease ends when each of its batches has come
to a step, or is known to have been lost on the way. This module does not ask whether a step was
applied: the parameter servers have counted that, and the chief compares.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from ..cluster.chief_client import JobStopping
from ..errors import UsageError, WaitTimeout
from ..model.input.file_index import FileIndex, FileQuery, count_files
from ..model.input.shard_plan import InputPlan
from ..model.input.source import Lease
from ..protos import shards_pb2 as pb
from .holds import HoldLink, HoldWatch
from .open_leases import LeaseReport, OpenLeases
from .shards_client import ChiefSilent, ShardsClient, TaskUnknown

log = logging.getLogger(__name__)

# How long the chief may take to find a shard before it says that there is none now.
WAIT_SECS = 1.0
# Between two reports when nothing happens, and before a silent chief is asked again.
REPORT_SECS = 1.0
REPORT_TIMEOUT_SECS = 10.0
RETRY_SECS = 0.2
# For the question whether leases still hold, which keeps a step waiting.
CHECK_SECS = 5.0


class LeasedInput:
    """The shards of one worker; an `InputSource`.

    Example::

        source = LeasedInput(ShardsClient(client), heartbeat, lease_secs=10.0, max_wait_secs=600.0)
        built = build_train_graph(build, TaskContext("worker", ..., input=source), ...)
        hooks = [InputHook(source, built.spec.position), ...]
        ...
        source.stop()

    Args:
        client: The connection to the chief.
        holds: The holds, in which no step begins.
        lease_secs: Seconds after which the chief declares a silent task lost, and deals its shards
            to others.
        max_wait_secs: Seconds for which the chief may be silent.
        cancelled: Returns whether this worker has to stop; called now and then.
        is_left: Returns whether no step can begin any more in the worker's session.
        session: Returns the number of the worker's newest session. It grows before the former
            session is closed: reads for that session then end, because the close waits for them.
        clock: Seconds from any origin.

    Attributes:
        failure: The reason why the input cannot continue: a file does not fit its description.
    """

    def __init__(
        self,
        client: ShardsClient,
        holds: HoldLink,
        *,
        lease_secs: float,
        max_wait_secs: float,
        cancelled: Callable[[], bool] = lambda: False,
        is_left: Callable[[], bool] = lambda: False,
        session: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._lease_secs = lease_secs
        self._max_wait_secs = max_wait_secs
        self._cancelled = cancelled
        self._session = session
        self._clock = clock
        self.failure: UsageError | None = None
        self._dataset: pb.Dataset | None = None
        self._starting, self._asking = threading.Lock(), threading.Lock()
        self._wake = threading.Event()
        self._leases = OpenLeases(self._wake.set, clock)
        self._heard = clock()
        self._holds = HoldWatch(
            holds, is_idle=lambda: not self._leases, cancelled=cancelled, is_left=is_left
        )
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    # -- the dataset's side

    def find_files(self, query: FileQuery) -> FileIndex:
        """Asks the chief for the index; counts the files if the chief cannot read them.

        Raises:
            JobStopping: The job ends.
            UsageError: There are no such files on this host, or one is damaged.
            WaitTimeout: The chief was silent for too long.
        """
        heard, index = self._clock(), b""
        while not self._cancelled():
            try:
                reply = self._client.find_files(query.to_json(), index, WAIT_SECS)
                heard = self._clock()
            except (ChiefSilent, TaskUnknown) as error:
                self._check_silence(heard, error)
                self._ended.wait(RETRY_SECS)
                continue
            if reply.index:
                return FileIndex.from_bytes(reply.index)
            if reply.count:
                index = count_files(query, cancelled=self._cancelled).to_bytes()
                heard = self._clock()
        raise JobStopping

    def leases(self, plan: InputPlan) -> Iterator[Lease]:
        """Yields the shards that the chief deals, until there are no more.

        Raises:
            UsageError: The chief has another dataset.
            WaitTimeout: The chief was silent for too long.
        """
        session = self._session()

        def is_over() -> bool:
            return self._session() != session

        self.void()  # A new iterator has none of the batches read ahead by a former one.
        self._start(plan)
        while (lease := self._next_lease(plan, is_over)) is not None:
            self._holds.wait(is_over)  # Else an idle worker could begin a step in a hold.
            yield lease

    def note_unread(self, number: int, batches: list[int], explain: Callable[[], str]) -> None:
        """Records batches that will not come to a step.

        Raises:
            UsageError: The input does not fit its description; `failure` is the same.
        """
        if number < self._leases.valid_from or self._cancelled() or self._ended.is_set():
            return  # It was broken off.
        try:
            error = explain()
        except UsageError as failure:
            self.failure = failure
            raise
        self._leases.miss(number, batches, error)

    # -- the steps' side

    def begin_step(self) -> None:
        """Waits while the model is being saved, so that no step falls into that."""
        self._holds.begin_step()

    def end_step(self) -> None:
        """Says that no step is under way."""
        self._holds.end_step()

    def complete(self, positions: Sequence[Sequence[int]], step_secs: float = 0.0) -> None:
        """Notes batches that came to a step, applied or not.

        Args:
            positions: As the dataset has yielded them: batch, epoch and lease.
            step_secs: Seconds that the step took.
        """
        self._leases.complete(positions, step_secs)

    def void(self) -> None:
        """Returns all leases, because a step of them may have been lost."""
        self._leases.void()

    def check(self) -> bool:
        """Returns whether the next step's batches may be trained on, as far as is known.

        The chief is asked only when its last answer is so old that it may have declared this worker
        lost: a process that was suspended learns that before its next step.
        """
        if self._leases and self._clock() - self._heard > self._lease_secs:
            self._report(CHECK_SECS)
        return not self._leases.must_discard

    def discard_void(self, next_positions: Callable[[], Sequence[Sequence[int]]]) -> None:
        """Discards the batches of leases that were given back.

        One batch too many goes with it; it is dealt again.

        Args:
            next_positions: Takes the next batch, or batches, out of the input.
        """
        thrown = 0
        while self._leases.must_discard:
            positions = next_positions()
            thrown += len(positions)
            self._leases.discard(positions)
        log.info("%d batches of leases that are void were thrown away", thrown)

    def stop(self) -> None:
        """Returns the leases that are still read, and ends the thread."""
        self.void()
        self._holds.stop()
        self._ended.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=15)
            self._report(CHECK_SECS)
        self._client.close()

    # -- inner workings

    def _start(self, plan: InputPlan) -> None:
        with self._starting:
            self._dataset = plan.to_proto()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="input-reports", daemon=True)
                self._thread.start()
            self._holds.start()

    def _next_lease(self, plan: InputPlan, is_over: Callable[[], bool]) -> Lease | None:
        heard = self._clock()
        while not (self._cancelled() or self._ended.is_set() or is_over()):
            try:
                reply = self._ask(plan)
                heard = self._clock()
            except (ChiefSilent, TaskUnknown) as error:
                self._check_silence(heard, error)
                self._ended.wait(RETRY_SECS)
                continue
            if isinstance(reply, Lease) or reply is None:
                return reply
            self._leases.lose_idle()
        return None

    def _ask(self, plan: InputPlan) -> Lease | Literal["wait"] | None:
        """Asks the chief once; None: there are no more shards."""
        with self._asking:
            report = self._leases.report()
            reply = self._client.lease(plan.to_proto(), report.held, report.finished, WAIT_SECS)
            self._note_answer(report)
            if reply.end:
                return None
            if not reply.HasField("lease"):
                return "wait"
            return self._leases.take(plan, reply.lease, report.valid_from) or "wait"

    def _check_silence(self, heard: float, error: Exception) -> None:
        if (silence := self._clock() - heard) > self._max_wait_secs:
            raise WaitTimeout(
                f"max_wait_secs={self._max_wait_secs:g} ran out: no shard of the input for "
                f"{silence:.0f} s: {error}; is the chief running?"
            )

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(REPORT_SECS)
            self._wake.clear()
            self._report(REPORT_TIMEOUT_SECS)

    def _report(self, timeout_secs: float) -> None:
        """Reports finished batches to the chief, and drops the leases that are void there."""
        report = self._leases.report()
        if self._dataset is None or not (report.finished or report.held):
            self._heard = self._clock()
            return
        try:
            void = self._client.report(self._dataset, report.held, report.finished, timeout_secs)
        except TaskUnknown:
            self.void()
            self._heard = self._clock()
            return
        except (ChiefSilent, UsageError) as error:
            log.debug("the chief did not take the report of the input: %s", error)
            return
        self._note_answer(report)
        if self._leases.holds_any(void):
            log.warning("the chief has dealt shards of this worker to others")
            self.void()

    def _note_answer(self, report: LeaseReport) -> None:
        self._heard = self._clock()
        self._leases.note_told(report)
