"""`Heartbeat`: the stream that keeps a task in its job and brings its news."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from ..errors import JobFailed, WaitTimeout
from ..protos import membership_pb2 as pb
from .chief_client import LeaseLost, MembershipClient
from .deadline import growing_pauses
from .status_client import JOB_FILE, read_job_file

log = logging.getLogger(__name__)

# Seconds between two reports in a hold: a worker must notice soon that its chief is gone.
HELD_SECS = 1.0
_END_SECS = 15.0
Listener = Callable[[int, bool], None]


class Heartbeat:
    """The renewal of a task's lease over one stream, which also brings news.

    An error in the background ends the wait of `stopping` and is raised again by `check`.

    Args:
        client: A registered client.
        report: Called for each heartbeat; None for tasks with nothing to report.
        max_silence_secs: Seconds without news after which the chief is given up.
        on_news: Called in the thread with all news of the chief.
        on_end: Called in the thread with the error, once `stopping` is set.

    Attributes:
        stopping: Set when this task should leave the job, or cannot stay in it.
        may_go: Set when the chief has saved this task's parameters, after notice.
        latest: The newest news.
    """

    def __init__(
        self,
        client: MembershipClient,
        *,
        report: Callable[[], pb.WorkerReport | None] = lambda: None,
        max_silence_secs: float,
        on_news: Callable[[pb.TaskNews], None] = lambda _: None,
        on_end: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._report = report
        self._max_silence_secs = max_silence_secs
        self._on_news = on_news
        self._on_end = on_end
        self._holds: Listener | None = None
        self._answered_hold = 0
        self._heard = 0.0
        self._number = 0
        self._call: Any = None
        self._is_due = threading.Event()
        self._ended = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.stopping = threading.Event()
        self.may_go = threading.Event()
        self.latest = pb.TaskNews()

    def start(self) -> None:
        """Starts the thread."""
        self._heard = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; the lease then runs out unless the task leaves."""
        self._ended.set()
        self._is_due.set()
        if (call := self._call) is not None:
            call.cancel()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_END_SECS)

    @property
    def is_running(self) -> bool:
        """True if the thread lives."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raises the error of the background thread, if there is one.

        Raises:
            WaitTimeout: The chief was silent for too long.
            JobFailed: The chief declared this task lost.
        """
        if self._error is not None:
            raise self._error

    def hear_holds(self, listener: Listener) -> None:
        """Tells the chief that this task answers holds.

        Args:
            listener: Called in the thread with the number of the newest hold, and whether it
                lasts, again and again; a hold is over when the stream breaks.
        """
        self._holds = listener
        self._is_due.set()

    def answer_hold(self, number: int) -> None:
        """Tells the chief at once that no step is under way, and none begins in this hold."""
        self._answered_hold = number
        self._is_due.set()

    # -- the thread

    def _run(self) -> None:
        pauses = growing_pauses()
        while not self._ended.is_set():
            heard = self._heard
            try:
                reason = self._attend()
            except LeaseLost as error:
                return self._fail(JobFailed(f"the chief declared this task lost: {error}"))
            except Exception as error:
                return self._fail(error)
            if self._ended.is_set():
                return None
            silence = time.monotonic() - self._heard
            log.warning("no answer from the chief for %.1f s: %s", silence, reason)
            if silence > self._max_silence_secs:
                return self._fail(self._silence(silence))
            if self._heard > heard:
                pauses = growing_pauses()
            if not self._has_moved():
                # Not all tasks at the same moment, when it is back.
                self._ended.wait(next(pauses) * random.uniform(0.5, 1.5))
        return None

    def _attend(self) -> str:
        """Reports, and passes on news, while a stream holds; returns the reason of its end.

        Raises:
            LeaseLost: The chief declared this task lost.
            Exception: As `report`.
        """
        self._answered_hold = 0  # Another chief counts its holds from 1 again.
        self._number += 1
        call = self._call = self._client.attend(self._reports(self._number, time.monotonic()))
        try:
            if not self._ended.is_set():  # Else it was set before there was a call to cancel.
                for news in call:
                    self._note(news)
            reason = "it has ended the stream"
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise LeaseLost(error.details()) from error
            reason = error.details() or error.code().name
        finally:
            call.cancel()
            self._number += 1
            self._is_due.set()
            if self._holds is not None:
                self._holds(self.latest.hold.number, False)
        if self._error is not None:
            raise self._error
        return reason

    def _note(self, news: pb.TaskNews) -> None:
        self._heard = time.monotonic()
        self._client.note_task(news.task)
        self.latest = news
        if self._holds is not None and news.HasField("hold"):
            self._holds(news.hold.number, news.hold.held)
        self._on_news(news)
        if news.may_go:
            self.may_go.set()
        if news.stop:
            self.stopping.set()

    def _reports(self, number: int, opened: float) -> Iterator[pb.TaskReport]:
        """Yields the reports of one stream; runs in a thread of gRPC's.

        Ends the stream when the chief is silent for too long.
        """
        call_timeout_secs = self._client.call_timeout_secs
        while self._number == number:
            self._is_due.clear()
            try:
                report = self._report()
            except Exception as error:  # gRPC would only log it.
                self._error = error
                break
            yield self._client.task_report(report, self._holds is not None, self._answered_hold)
            self._is_due.wait(self._interval_secs)
            if time.monotonic() - max(self._heard, opened) > call_timeout_secs:
                break
        if self._number == number and self._call is not None:
            self._call.cancel()

    @property
    def _interval_secs(self) -> float:
        secs = self._client.registration.job.heartbeat_secs
        return min(secs, HELD_SECS) if self.latest.hold.held else secs

    def _has_moved(self) -> bool:
        """Connects to the chief that the log directory names, if it is another one of this job.

        A chief whose host is lost has a successor on another host.
        """
        job = self._client.registration.job
        try:
            there = json.loads(read_job_file(job.logdir, JOB_FILE) or "{}")
            address = str(there["address"]) if there.get("job_id") == job.job_id else None
        except Exception as error:  # Whatever that file system raises: the chief may be back here.
            log.debug("nothing can be learned of another chief: %s", error)
            return False
        if address is None or address == self._client.address:
            return False  # There is none, or not yet.
        self._client.turn_to(address)
        return True

    def _silence(self, secs: float) -> WaitTimeout:
        return WaitTimeout(
            f"the chief at {self._client.address} has not answered for {secs:.0f} s "
            f"(limit {self._max_silence_secs:g} s); is it running?"
        )

    def _fail(self, error: Exception) -> None:
        self._error = error
        self.stopping.set()
        self._on_end(error)
