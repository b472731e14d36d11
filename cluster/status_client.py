"""`StatusClient`: the client of commands and of the launching process for a running job."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from ..errors import JobFailed, ParamserveError, UsageError
from ..protos import status_pb2 as pb
from ..protos.status_pb2_grpc import StatusStub
from ..reasons import reason_of
from .access import Access
from .chief_client import CALL_TIMEOUT_SECS
from .diagnosis import diagnose
from .token import Right, find_token

# The chief's files in the log directory: its address, and the result of the job.
JOB_FILE = "job.json"
RESULT_FILE = "result.json"
# How long a chief that may be dead has to answer.
_LOOK_SECS = 2.0
_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


_OPEN = Access()


class NoAnswer(JobFailed):
    """No job answers at the address."""


def find_chief(logdir: str) -> str:
    """Returns the control address of the job that runs in a log directory.

    Raises:
        UsageError: None runs there.
    """
    try:
        content = read_job_file(logdir, JOB_FILE)
        if content is not None:
            return str(json.loads(content)["address"])
        hint = _describe_end(read_job_file(logdir, RESULT_FILE))
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{logdir}/{JOB_FILE} cannot be read: {error}") from error
    raise UsageError(f"no job runs in {logdir!r} ({JOB_FILE} is not there): {hint}")


def _describe_end(result: str | None) -> str:
    """Says how the last job of a log directory ended, by its result file."""
    if result is None:
        return "is that the --logdir?"
    if error := json.loads(result).get("error"):
        return f"the last job here failed: {error}"
    return f"the last one has ended, see {RESULT_FILE} there"


def refuse_live_job(logdir: str, access: Access = _OPEN) -> None:
    """Refuses a second job in a log directory: each would overwrite the other's checkpoints.

    Args:
        logdir: The log directory.
        access: TLS of this process, for a job that has the same.

    Raises:
        UsageError: A job runs there, and its chief answers.
    """
    try:
        address = find_chief(logdir)
    except UsageError:
        return
    if not _is_alive(address, Access(None, access.tls)):
        return  # It died and left its file behind.
    raise UsageError(
        f"a job already runs in --logdir {logdir!r} (chief at {address}): stop it with "
        f"`paramserve stop --chief {address}`, or give another directory"
    )


def _is_alive(address: str, access: Access) -> bool:
    """Returns whether a chief answers, if only to refuse, or to ask for TLS."""
    try:
        with StatusClient(address, access, _LOOK_SECS) as other:
            other.status()
        return True
    except NoAnswer:
        return diagnose(address, access) is not None
    except ParamserveError:
        return True


def read_job_file(logdir: str, name: str) -> str | None:
    """Returns a file of the chief in a log directory; None if it does not exist.

    Args:
        logdir: A path of this host, or a URL.
        name: `JOB_FILE` or `RESULT_FILE`.

    Raises:
        OSError: The file cannot be read.
    """
    if "://" in logdir:
        # Takes TensorFlow along, which commands do without.
        from .logdir.errors import LOGDIR_ERRORS
        from .logdir.interface import open_logdir

        try:
            return open_logdir(logdir).read_text(name)
        except LOGDIR_ERRORS as error:
            raise OSError(reason_of(error)) from error
    try:
        return Path(logdir, name).read_text()
    except FileNotFoundError:
        return None


class StatusClient:
    """Asks a running job.

    Args:
        address: `host:port` of the chief.
        access: The token and TLS of the calls; None: the token of the environment, if any.
        timeout_secs: How long an answer may take.

    Example::

        with StatusClient(find_chief("runs/census")) as job:
            print(job.status().global_step)
    """

    def __init__(
        self, address: str, access: Access | None = None, timeout_secs: float = CALL_TIMEOUT_SECS
    ) -> None:
        self.address = address
        self._access = access or Access(find_token(None))
        self._timeout_secs = timeout_secs
        self._channel = self._access.open_channel(address, Right.CONTROL, Right.READ)
        self._stub = StatusStub(self._channel)

    def __enter__(self) -> StatusClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def status(self, *, all_tasks: bool = True) -> pb.JobStatus:
        """Returns the status now.

        Args:
            all_tasks: Whether to list every task, also of a job with so many that the chief names
                only those that need a look.

        Raises:
            JobFailed: Nothing answers, or the job refused.
        """
        status: pb.JobStatus = self._call(self._stub.GetStatus, pb.GetStatusRequest())
        if all_tasks and status.num_tasks > len(status.tasks):
            tasks = list(self._list_tasks())
            del status.tasks[:]
            status.tasks.extend(tasks)
        return status

    def _list_tasks(self) -> Iterator[pb.TaskStatus]:
        offset, num_tasks = 0, 1
        while offset < num_tasks:
            request = pb.ListTasksRequest(offset=offset)
            page = self._call(self._stub.ListTasks, request)
            if not page.tasks:
                return
            yield from page.tasks
            offset, num_tasks = offset + len(page.tasks), page.num_tasks

    def watch(self, interval_secs: float = 1.0) -> Iterator[pb.JobStatus]:
        """Returns the status now and at each interval, until the job ends."""
        yield from self._stub.WatchStatus(pb.WatchStatusRequest(interval_secs=interval_secs))

    def stop(self, error: str = "") -> None:
        """Ends the job with a checkpoint; as failed, when a reason is given."""
        self._call(self._stub.Stop, pb.StopRequest(error=error))

    def save_checkpoint(self) -> pb.SaveCheckpointResponse:
        """Writes a checkpoint and returns when it is whole."""
        return self._call(self._stub.SaveCheckpoint, pb.SaveCheckpointRequest(), 10)

    def scale(self, *, workers: int | None = None, ps: int | None = None) -> None:
        """Asks for another number of workers or parameter servers, and returns at once.

        Raises:
            JobFailed: Nothing answers.
            UsageError: The job cannot have so many.
        """
        self._call(self._stub.Scale, pb.ScaleRequest(workers=workers, ps=ps))

    def report_ended(self, incarnations: Sequence[str]) -> None:
        """Says that processes have ended, which the job takes as lost at once.

        Raises:
            JobFailed: Nothing answers.
        """
        self._call(self._stub.ReportEnded, pb.ReportEndedRequest(incarnations=incarnations))

    def diagnose(self) -> str | None:
        """Returns why a chief that listens does not answer, and the remedy; takes a few seconds."""
        return diagnose(self.address, self._access)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _call(self, method: Any, request: Any, times: float = 1.0) -> Any:
        try:
            return method(request, timeout=self._timeout_secs * times)
        except grpc.RpcError as error:
            if error.code() in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                grpc.StatusCode.CANCELLED,  # It ended under the call.
            ):
                raise NoAnswer(
                    f"no job answers at {self.address}: is the chief running?"
                ) from error
            if error.code() in _REFUSED:
                raise UsageError(f"the job at {self.address} refused: {error.details()}") from error
            if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                raise UsageError(str(error.details())) from error
            raise JobFailed(f"the job at {self.address} refused: {error.details()}") from error
