"""The right that each call to the chief needs."""

from __future__ import annotations

from collections.abc import Mapping

from ...cluster.token import Right

RIGHTS: Mapping[str, Right] = {
    "/paramserve.Membership/Register": Right.MEMBER,
    "/paramserve.Membership/Attend": Right.MEMBER,
    "/paramserve.Membership/AwaitReady": Right.MEMBER,
    "/paramserve.Membership/GiveNotice": Right.MEMBER,
    "/paramserve.Membership/Leave": Right.MEMBER,
    "/paramserve.Membership/WriteSummary": Right.MEMBER,
    "/paramserve.Shards/Lease": Right.MEMBER,
    "/paramserve.Shards/Report": Right.MEMBER,
    "/paramserve.Shards/FindFiles": Right.MEMBER,
    "/paramserve.Status/GetStatus": Right.READ,
    "/paramserve.Status/WatchStatus": Right.READ,
    "/paramserve.Status/ListTasks": Right.READ,
    "/paramserve.Status/SaveCheckpoint": Right.CONTROL,
    "/paramserve.Status/Stop": Right.CONTROL,
    "/paramserve.Status/Scale": Right.CONTROL,
    "/paramserve.Status/ReportEnded": Right.CONTROL,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Right.READ,
}
# Probes have no token.
_OPEN = "/grpc.health.v1.Health/"


def right_for(method: str) -> Right | None:
    """Returns the right that a call needs; None: it is open to all that reach the port.

    A call that is not in the table needs the right to control.
    """
    return None if method.startswith(_OPEN) else RIGHTS.get(method, Right.CONTROL)
