"""The takeover of a job by its next chief: the job's members, kept in the log directory.

Parameter servers and workers outlive their chief. A chief that is restarted with the same job's
identifier finds them there, and continues with the model that they hold.
"""

from __future__ import annotations

import json
from typing import Any

from ..cluster.spec import Role, Task
from .membership.membership import Membership
from .membership.tasks import TaskRecord, TaskState
from .resize.plan import ScaleTarget


def to_json(job_id: str, membership: Membership, plan: ScaleTarget) -> str:
    """Returns the members of a job, and its wanted number of workers, for `adopt`."""
    with membership.changed:
        records = membership.records()
        job = {
            "job_id": job_id,
            "generation": membership.generation,
            "num_ps": membership.num_ps,
            "layout": membership.layout,
            "workers": plan.workers if plan.limits_workers else None,
        }
    # One by one: thousands of them in one call would keep other threads waiting.
    tasks = ",\n".join(
        json.dumps(
            {
                "role": str(record.task.role),
                "index": record.task.index,
                "state": str(record.state),
                "address": record.address,
                "incarnation": record.incarnation,
                "metrics_address": record.metrics_address,
                "pid": record.pid,
            }
        )
        for record in records
    )
    return json.dumps(job)[:-1] + f', "tasks": [\n{tasks}\n]}}'


def adopt(text: str | None, job_id: str, membership: Membership, plan: ScaleTarget) -> bool:
    """Takes over the tasks that an earlier chief of the same job had.

    Args:
        text: The result of `to_json`; None if there is none.
        job_id: The job's identifier.
        membership: Receives the tasks; empty before.
        plan: Receives the numbers requested of the earlier chief.

    Returns:
        True if there was a job to take over: it had all of its parameter servers.
    """
    left = _read(text)
    if left.get("job_id") != job_id:
        return False
    try:
        records, workers = [_record(each) for each in left["tasks"]], left["workers"]
        is_found = membership.adopt(
            int(left["generation"]), records, int(left["num_ps"]), int(left["layout"])
        )
        plan.ps = membership.num_ps
        if is_found and workers is not None:
            plan.ask(workers=int(workers))
        return is_found
    except (KeyError, TypeError, ValueError):
        return False  # Of another version: the job starts from its checkpoint.


def _read(text: str | None) -> dict[str, Any]:
    try:
        left = json.loads(text or "{}")
    except ValueError:
        return {}
    return left if isinstance(left, dict) else {}


def _record(each: dict[str, Any]) -> TaskRecord:
    return TaskRecord(
        task=Task(Role.parse(each["role"]), int(each["index"])),
        address=str(each["address"]),
        incarnation=str(each["incarnation"]),
        metrics_address=str(each["metrics_address"]),
        pid=int(each["pid"]),
        heard=0.0,
        state=TaskState(each["state"]),
    )
