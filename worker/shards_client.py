"""A worker's side of the shards service."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import grpc

from ..cluster.chief_client import CALL_TIMEOUT_SECS, MembershipClient
from ..errors import UsageError
from ..protos import membership_pb2, shards_pb2 as pb
from ..protos.shards_pb2_grpc import ShardsStub


class ChiefSilent(Exception):
    """The chief does not answer, or is not as far as to have an answer; it may later."""


class TaskUnknown(Exception):
    """The chief declared this life of the task lost."""


class ShardsClient:
    """Client that asks the chief for shards, in the name of a registered task.

    Args:
        client: The registered client.
    """

    def __init__(self, client: MembershipClient) -> None:
        self._client = client
        self._address = client.address
        self._channel = self._client.open_channel()
        self._shards = ShardsStub(self._channel)

    def lease(
        self,
        dataset: pb.Dataset,
        held: Sequence[pb.HeldShard],
        finished: Sequence[pb.FinishedShard],
        wait_secs: float,
    ) -> pb.LeaseResponse:
        """Asks for a shard.

        Args:
            dataset: The dataset that the task reads.
            held: All leases that it still reads; the chief takes back the others.
            finished: Its finished leases.
            wait_secs: Seconds for which the chief may wait for a shard.

        Raises:
            ChiefSilent, TaskUnknown: See their documentation.
            UsageError: The chief has another dataset.
        """
        request = pb.LeaseRequest(
            task=self._task(),
            incarnation=self._client.registration.incarnation,
            dataset=dataset,
            held=held,
            finished=finished,
            wait_secs=wait_secs,
        )
        try:
            return self._stub.Lease(request, timeout=wait_secs + self._client.call_timeout_secs)
        except (grpc.RpcError, ValueError) as error:
            raise _translated(error) from error

    def report(
        self,
        dataset: pb.Dataset,
        held: Iterable[pb.HeldShard],
        finished: Iterable[pb.FinishedShard],
        timeout_secs: float = CALL_TIMEOUT_SECS,
    ) -> set[int]:
        """Reports finished leases; returns those of the held leases that are void.

        Raises:
            ChiefSilent, TaskUnknown, UsageError: As `lease`.
        """
        request = pb.ReportRequest(
            task=self._task(),
            incarnation=self._client.registration.incarnation,
            dataset=dataset,
            held=held,
            finished=finished,
        )
        try:
            timeout = min(timeout_secs, self._client.call_timeout_secs)
            return set(self._stub.Report(request, timeout=timeout).void_leases)
        except (grpc.RpcError, ValueError) as error:
            raise _translated(error) from error

    def find_files(self, query: str, index: bytes, wait_secs: float) -> pb.FindFilesResponse:
        """Asks for the index of the input's files.

        Args:
            query: The query for files, as JSON.
            index: This task's index, if the chief told it to count; else empty.
            wait_secs: Seconds for which the chief may wait for the index.

        Raises:
            ChiefSilent, TaskUnknown, UsageError: As `lease`.
        """
        request = pb.FindFilesRequest(
            task=self._task(),
            incarnation=self._client.registration.incarnation,
            query=query,
            index=index,
            wait_secs=wait_secs,
        )
        try:
            return self._stub.FindFiles(request, timeout=wait_secs + self._client.call_timeout_secs)
        except (grpc.RpcError, ValueError) as error:
            raise _translated(error) from error

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    @property
    def _stub(self) -> ShardsStub:
        """The service of the present chief; the next one may be at another address."""
        if self._client.address != self._address:
            self._channel.close()
            self._address = self._client.address
            self._channel = self._client.open_channel()
            self._shards = ShardsStub(self._channel)
        return self._shards

    def _task(self) -> membership_pb2.TaskId:
        task = self._client.registration.task
        return membership_pb2.TaskId(role=task.role, index=task.index)


def _translated(error: Exception) -> Exception:
    if not isinstance(error, grpc.RpcError):
        return ChiefSilent(str(error))  # The channel is closed.
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return UsageError(details)
    if code is grpc.StatusCode.NOT_FOUND:
        return TaskUnknown(details)
    return ChiefSilent(details or code.name)
