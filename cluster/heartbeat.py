"""The thread by which a task stays in its job."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable

import grpc

from ..errors import JobFailed, WaitTimeout
from ..protos import membership_pb2 as pb
from .chief_client import LeaseLost, MembershipClient
from .status_client import JOB_FILE, read_job_file

log = logging.getLogger(__name__)


class Heartbeat:
    """Renews a task's lease, and knows what the chief last said.

    What goes wrong in the background ends the wait of `stopping` and resurfaces in `check`.

    Args:
        client: A registered client.
        report: Called for each heartbeat; None for tasks with nothing to report.
        max_silence_secs: Seconds without an answer after which the chief is given up.
        on_answer: Called in the thread with each answer of the chief.
        on_end: Called in the thread with what went wrong, once `stopping` is set.
    """

    def __init__(
        self,
        client: MembershipClient,
        *,
        report: Callable[[], pb.WorkerReport | None] = lambda: None,
        max_silence_secs: float,
        on_answer: Callable[[pb.HeartbeatResponse], None] = lambda _: None,
        on_end: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._report = report
        self._max_silence_secs = max_silence_secs
        self._on_answer = on_answer
        self._on_end = on_end
        self._ended = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.stopping = threading.Event()
        self.latest = pb.HeartbeatResponse()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; the lease then runs out unless the task leaves."""
        self._ended.set()
        self._thread.join(timeout=15)

    @property
    def is_running(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raises what went wrong in the background.

        Raises:
            WaitTimeout: The chief was silent for too long.
            JobFailed: The chief took this task as gone.
        """
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        interval = self._client.registration.job.heartbeat_secs
        heard = time.monotonic()
        while not self._ended.is_set():
            try:
                self.latest = self._client.heartbeat(self._report())
                heard = time.monotonic()
                self._on_answer(self.latest)
            except LeaseLost as error:
                return self._fail(JobFailed(f"the chief took this task as gone: {error}"))
            except grpc.RpcError as error:
                silence = time.monotonic() - heard
                log.warning("no answer from the chief for %.1f s: %s", silence, error.details())
                if silence > self._max_silence_secs:
                    return self._fail(self._silence(silence))
                if self._has_moved():
                    continue
            except Exception as error:
                return self._fail(error)
            if self.latest.stop:
                self.stopping.set()
            self._ended.wait(interval)
        return None

    def _has_moved(self) -> bool:
        """Turns to the chief that the log directory names, if it is another one of this job.

        One whose host is lost is followed by one on another host.
        """
        job = self._client.registration.job
        try:
            there = json.loads(read_job_file(job.logdir, JOB_FILE) or "{}")
            address = str(there["address"]) if there.get("job_id") == job.job_id else None
        except Exception as error:  # Whatever that file system raises: the chief may be back here.
            log.debug("nothing can be learned of another chief: %s", error)
            return False
        if address is None or address == self._client.address:
            return False  # It is not there, or not yet.
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
