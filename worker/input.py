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
from dataclasses import dataclass
from typing import Literal

from ..cluster.chief_client import JobStopping
from ..errors import UsageError, WaitTimeout
from ..model.input.file_index import FileIndex, FileQuery, count_files
from ..model.input.shard_plan import InputPlan
from ..model.input.source import Lease
from ..protos import shards_pb2 as pb
from .holds import HoldWatch
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
# After so many seconds without a step, and so many times the longest step, a batch that has not
# come to a step will not come any more.
IDLE_SECS = 60.0
IDLE_STEPS = 10

# The error, for people, of batches that never came to a step.
LOST = "it was lost on the way to a step"


@dataclass
class _Open:
    """A lease that has not ended, and its batches that have not come to a step."""

    held: pb.HeldShard
    batches: frozenset[int]
    left: set[int]
    missed: int = 0
    error: str = ""


class LeasedInput:
    """The shards of one worker; an `InputSource`.

    Example::

        source = LeasedInput(ShardsClient(client), lease_secs=10.0, max_wait_secs=600.0)
        built = build_train_graph(build, TaskContext("worker", ..., input=source), ...)
        hooks = [InputHook(source, built.spec.position), ...]
        ...
        source.stop()

    Args:
        client: The connection to the chief.
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
        self._lock = threading.RLock()
        self._asking = threading.Lock()
        self._open: dict[int, _Open] = {}
        self._finished: list[pb.FinishedShard] = []
        self._next_number = self._valid_from = 0
        self._must_discard = False
        self._heard = self._progressed = clock()
        self._longest_step = 0.0
        self._holds = HoldWatch(
            client, is_idle=lambda: not self._open, cancelled=cancelled, is_left=is_left
        )
        self._wake = threading.Event()
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
        if number < self._valid_from or self._cancelled() or self._ended.is_set():
            return  # It was broken off.
        try:
            error = explain()
        except UsageError as failure:
            self.failure = failure
            raise
        with self._lock:
            if (opened := self._open.get(number)) is None:
                return
            opened.missed, opened.error = len(batches), error
            opened.left.difference_update(batches)
            if not opened.left:
                self._finish(number)

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
        with self._lock:
            self._progressed = self._clock()
            self._longest_step = max(self._longest_step, step_secs)
            for batch, _, number in positions:
                if number in self._open:
                    self._open[number].left.discard(batch)
                    if not self._open[number].left:
                        self._finish(number)
                # Batches come nearly in order: a batch two leases behind was lost on the way.
                for behind in [n for n in self._open if n <= number - 2]:
                    self._lose(behind)

    def void(self) -> None:
        """Returns all leases, because a step of them may have been lost."""
        with self._lock:
            self._valid_from = self._next_number
            self._must_discard |= bool(self._open)
            for number in list(self._open):
                self._finish(number, broken_off=True)

    def check(self) -> bool:
        """Returns whether the next step's batches may be trained on, as far as is known.

        The chief is asked only when its last answer is so old that it may have declared this worker
        lost: a process that was suspended learns that before its next step.
        """
        if self._open and self._clock() - self._heard > self._lease_secs:
            self._report(CHECK_SECS)
        return not self._must_discard

    def discard_void(self, next_positions: Callable[[], Sequence[Sequence[int]]]) -> None:
        """Discards the batches of leases that were given back.

        One batch too many goes with it; it is dealt again.

        Args:
            next_positions: Takes the next batch, or batches, out of the input.
        """
        thrown = 0
        while self._must_discard:
            positions = next_positions()
            thrown += len(positions)
            if all(number >= self._valid_from for _, _, number in positions):
                self._must_discard = False
                self.complete(positions)
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
        with self._lock:
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
            self._give_up_idle()
        return None

    def _ask(self, plan: InputPlan) -> Lease | Literal["wait"] | None:
        """Asks the chief once; None: there are no more shards."""
        with self._asking:
            with self._lock:
                valid_from, finished = self._valid_from, list(self._finished)
                held = [opened.held for opened in self._open.values()]
            reply = self._client.lease(plan.to_proto(), held, finished, WAIT_SECS)
            with self._lock:
                self._note_answer(finished)
                if reply.end:
                    return None
                if not reply.HasField("lease"):
                    return "wait"
                lease = self._take(plan, reply.lease)
                if self._valid_from != valid_from:
                    self._finish(lease.number)  # Was dealt before all of it was given back.
                    return "wait"
                return lease

    def _take(self, plan: InputPlan, lease: pb.ShardLease) -> Lease:
        held, number = lease.held, self._next_number
        self._next_number += 1
        first = int(plan.first_batches[held.shard])
        batches = frozenset(first + batch for batch in lease.batches)
        self._open[number] = _Open(held, batches, set(batches))
        return Lease(number, held.shard, held.epoch, tuple(lease.batches), lease.fills)

    def _finish(self, number: int, *, broken_off: bool = False) -> None:
        opened = self._open.pop(number)
        self._finished.append(
            pb.FinishedShard(
                held=opened.held, missed=opened.missed, error=opened.error, broken_off=broken_off
            )
        )
        self._wake.set()

    def _lose(self, number: int) -> None:
        opened = self._open[number]
        opened.missed, opened.error = opened.missed + len(opened.left), opened.error or LOST
        self._finish(number, broken_off=True)

    def _give_up_idle(self) -> None:
        """Ends leases whose batches cannot be on their way any more: the input waits for others."""
        patience = max(IDLE_SECS, IDLE_STEPS * self._longest_step)
        with self._lock:
            if self._clock() - self._progressed < patience:
                return
            for number in list(self._open):
                self._lose(number)

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
        with self._lock:
            finished = list(self._finished)
            held = [opened.held for opened in self._open.values()]
            if self._dataset is None or not (finished or held):
                self._heard = self._clock()
                return
        try:
            void = self._client.report(self._dataset, held, finished, timeout_secs)
        except TaskUnknown:
            self.void()
            self._heard = self._clock()
            return
        except (ChiefSilent, UsageError) as error:
            log.debug("the chief did not take the report of the input: %s", error)
            return
        with self._lock:
            self._note_answer(finished)
            if any(opened.held.lease in void for opened in self._open.values()):
                log.warning("the chief has dealt shards of this worker to others")
                self.void()

    def _note_answer(self, finished: Sequence[pb.FinishedShard]) -> None:
        self._heard = self._clock()
        told = {each.held.lease for each in finished}
        self._finished = [each for each in self._finished if each.held.lease not in told]
